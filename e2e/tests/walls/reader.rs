//! Fills in a target from its source: the modules that it declares, and what each names.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::Visit;

use crate::modules::{Call, Function, Literal, Module, Target, parent_of};

/// Reads a file and those of its modules. `folder` is where these lie.
pub(crate) fn read(
    target: &mut Target,
    sources: &BTreeMap<String, String>,
    module: usize,
    file: &str,
    folder: &str,
) {
    let Some(text) = sources.get(file) else {
        target.missing.push(file.to_owned());
        return;
    };
    let parsed = match syn::parse_file(text) {
        Ok(parsed) => parsed,
        Err(error) => {
            target.missing.push(format!("{file}: {error}"));
            return;
        }
    };
    let mut reader = SourceReader {
        target,
        file,
        module,
        folder: folder.to_owned(),
        declared: Vec::new(),
        function: String::new(),
        repeats: 0,
    };
    for item in &parsed.items {
        reader.visit_item(item);
    }
    for declared in reader.declared {
        read(
            target,
            sources,
            declared.module,
            &declared.file,
            &declared.folder,
        );
    }
}

/// A `mod` line, whose file is still to be read.
struct Declared {
    module: usize,
    file: String,
    folder: String,
}

struct SourceReader<'a> {
    target: &'a mut Target,
    file: &'a str,
    module: usize,
    /// Where files of modules declared here lie.
    folder: String,
    declared: Vec<Declared>,
    /// The function that is being read, the outermost one.
    function: String,
    /// Loops and closures around what is being read.
    repeats: usize,
}

impl SourceReader<'_> {
    fn here(&mut self) -> &mut Module {
        &mut self.target.modules[self.module]
    }

    /// A child of this module, which lies in this file until its own is known.
    fn child(&mut self, name: &str, test: bool) -> usize {
        let parent = self.module;
        let mut path = self.here().path.clone();
        path.push(name.to_owned());
        let test = test || self.here().test;
        let index = self.target.modules.len();
        self.target.modules.push(Module {
            path,
            file: self.file.to_owned(),
            test,
            parent: Some(parent),
            ..Module::default()
        });
        self.here().children.insert(name.to_owned(), index);
        index
    }

    fn module_item(&mut self, item: &syn::ItemMod, test: bool) {
        let name = item.ident.to_string();
        let child = self.child(&name, test);
        let content = item.content.as_ref().map(|(_, items)| items.as_slice());
        let included = content.and_then(included);
        if let (Some(items), None) = (content, &included) {
            let outer = (self.module, self.folder.clone());
            self.module = child;
            self.folder = format!("{}/{name}", self.folder);
            for item in items {
                self.visit_item(item);
            }
            (self.module, self.folder) = outer;
            return;
        }
        let (file, folder) = match included.or_else(|| path_attribute(&item.attrs)) {
            Some(path) => {
                let file = join(&parent_of(self.file), &path);
                let folder = parent_of(&file);
                (file, folder)
            }
            None => (
                format!("{}/{name}.rs", self.folder),
                format!("{}/{name}", self.folder),
            ),
        };
        self.target.modules[child].file.clone_from(&file);
        self.declared.push(Declared {
            module: child,
            file,
            folder,
        });
    }

    fn import(&mut self, tree: &syn::UseTree, before: &[String], re_export: bool) {
        let mut path = before.to_vec();
        match tree {
            syn::UseTree::Path(step) => {
                path.push(step.ident.to_string());
                self.import(&step.tree, &path, re_export);
            }
            syn::UseTree::Name(leaf) => {
                self.import_leaf(path, &leaf.ident.to_string(), None, re_export);
            }
            syn::UseTree::Rename(leaf) => {
                let alias = leaf.rename.to_string();
                self.import_leaf(path, &leaf.ident.to_string(), Some(alias), re_export);
            }
            syn::UseTree::Glob(_) => self.here().globs.push(path),
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before, re_export);
                }
            }
        }
    }

    /// What is only handed on is not used here; what uses it as well, names it.
    fn import_leaf(
        &mut self,
        mut path: Vec<String>,
        name: &str,
        alias: Option<String>,
        re_export: bool,
    ) {
        if name != "self" {
            path.push(name.to_owned());
        }
        let Some(own) = path.last().cloned() else {
            return;
        };
        let here = self.here();
        here.imports.insert(alias.unwrap_or(own), path.clone());
        if !re_export {
            here.named.insert(path);
        }
    }

    /// Reads what is inside a function as that function's.
    fn within(&mut self, name: &syn::Ident, read: impl FnOnce(&mut Self)) {
        let outer = self.function.clone();
        if outer.is_empty() {
            self.function = name.to_string();
        }
        read(self);
        self.function = outer;
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block, test: bool) {
        let first = signature.fn_token.span.start().line;
        let last = block.brace_token.span.close().end().line;
        let test = test || self.here().test;
        self.target.functions.push(Function {
            file: self.file.to_owned(),
            name: signature.ident.to_string(),
            lines: last + 1 - first,
            parameters: signature.inputs.len(),
            test,
        });
    }

    /// Reads what may run more than once.
    fn repeated(&mut self, read: impl FnOnce(&mut Self)) {
        self.repeats += 1;
        read(self);
        self.repeats -= 1;
    }

    /// A path may stand for a call: `Store::snapshot(store)`, `map(Result::unwrap)`.
    fn path(&mut self, path: Vec<String>) {
        if let [.., of, name] = path.as_slice()
            && !of.is_empty()
        {
            self.call(name);
        }
        self.here().named.insert(path);
    }

    fn call(&mut self, name: &str) {
        let method = match name {
            "unwrap" => "unwrap",
            "expect" => "expect",
            "snapshot" => "snapshot",
            "inspect" => "inspect",
            "until_refused" => "until_refused",
            _ => return,
        };
        if !self.here().test {
            let file = self.file.to_owned();
            let function = self.function.clone();
            self.target.calls.push(Call {
                file,
                function,
                method,
                repeated: self.repeats > 0,
            });
        }
    }

    fn literal(&mut self, text: &str) {
        let of_words = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
        if text.contains('-') && text.bytes().all(of_words) && !self.here().test {
            let file = self.file.to_owned();
            let text = text.to_owned();
            self.target.literals.push(Literal { file, text });
        }
    }

    /// What a macro is given is no syntax yet: paths and calls are found as they stand.
    fn tokens(&mut self, tokens: TokenStream) {
        let trees: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < trees.len() {
            match &trees[at] {
                TokenTree::Group(group) => {
                    if group.delimiter() != Delimiter::None || !group.stream().is_empty() {
                        self.tokens(group.stream());
                    }
                    at += 1;
                }
                TokenTree::Ident(first) => {
                    let before = at.checked_sub(1).and_then(|before| trees.get(before));
                    if is_punct(before, '.') {
                        if matches!(trees.get(at + 1), Some(TokenTree::Group(_))) {
                            self.call(&first.to_string());
                        }
                        at += 1;
                        continue;
                    }
                    let mut path = vec![first.to_string()];
                    at += 1;
                    while is_punct(trees.get(at), ':')
                        && is_punct(trees.get(at + 1), ':')
                        && let Some(TokenTree::Ident(next)) = trees.get(at + 2)
                    {
                        path.push(next.to_string());
                        at += 3;
                    }
                    self.path(path);
                }
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    self.literal(text.trim_start_matches('b').trim_matches('"'));
                    at += 1;
                }
                TokenTree::Punct(_) => at += 1,
            }
        }
    }
}

impl<'ast> Visit<'ast> for SourceReader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let (attributes, name) = described(item);
        let test = is_test(attributes);
        if let Some(name) = name
            && !test
        {
            self.here().items.insert(name);
        }
        match item {
            syn::Item::Mod(item) => self.module_item(item, test),
            syn::Item::Use(_) if test => {}
            syn::Item::Use(item) => {
                let start = item.leading_colon.as_ref().map(|_| String::new());
                let before: Vec<String> = start.into_iter().collect();
                let re_export = !matches!(item.vis, syn::Visibility::Inherited);
                self.import(&item.tree, &before, re_export);
            }
            syn::Item::Fn(item) => {
                self.function(&item.sig, &item.block, test);
                if !test {
                    self.within(&item.sig.ident, |reader| {
                        syn::visit::visit_item_fn(reader, item);
                    });
                }
            }
            _ if test => {}
            item => syn::visit::visit_item(self, item),
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let test = is_test(&item.attrs);
        self.function(&item.sig, &item.block, test);
        if !test {
            self.within(&item.sig.ident, |reader| {
                syn::visit::visit_impl_item_fn(reader, item);
            });
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block, false);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.call(&call.method.to_string());
        syn::visit::visit_expr_method_call(self, call);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let start = path.leading_colon.as_ref().map(|_| String::new());
        let segments = path.segments.iter().map(|step| step.ident.to_string());
        let whole = start.into_iter().chain(segments).collect();
        self.path(whole);
        syn::visit::visit_path(self, path);
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.literal(&text.value());
    }

    fn visit_lit_byte_str(&mut self, text: &'ast syn::LitByteStr) {
        self.literal(&String::from_utf8_lossy(&text.value()));
    }

    fn visit_expr_loop(&mut self, each: &'ast syn::ExprLoop) {
        self.repeated(|reader| syn::visit::visit_expr_loop(reader, each));
    }

    fn visit_expr_while(&mut self, each: &'ast syn::ExprWhile) {
        self.repeated(|reader| syn::visit::visit_expr_while(reader, each));
    }

    fn visit_expr_for_loop(&mut self, each: &'ast syn::ExprForLoop) {
        // What is gone through is made once.
        self.visit_expr(&each.expr);
        self.repeated(|reader| reader.visit_block(&each.body));
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        self.repeated(|reader| syn::visit::visit_expr_closure(reader, closure));
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    /// The arguments of a derive's attribute become code of this file.
    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }

    /// `pub(super)` names who may look in, not what is looked at.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

fn is_punct(tree: Option<&TokenTree>, sign: char) -> bool {
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

/// `#[test]`, `#[tokio::test]` and `#[cfg(test)]`, but not `#[cfg(not(test))]`.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let path = attribute.path();
        if path
            .segments
            .last()
            .is_some_and(|last| last.ident == "test")
        {
            return true;
        }
        path.is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if asks_for_test(list.tokens.clone()))
    })
}

fn asks_for_test(condition: TokenStream) -> bool {
    let mut negated = false;
    condition.into_iter().any(|tree| match tree {
        TokenTree::Ident(word) => {
            negated = word == "not";
            word == "test"
        }
        TokenTree::Group(group) => !negated && asks_for_test(group.stream()),
        _ => false,
    })
}

/// The file that is all there is in a module: what generates code writes one.
fn included(items: &[syn::Item]) -> Option<String> {
    let [syn::Item::Macro(only)] = items else {
        return None;
    };
    let call = &only.mac;
    let text = call.parse_body::<syn::LitStr>().ok()?;
    call.path.is_ident("include").then(|| text.value())
}

fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        match &pair.value {
            syn::Expr::Lit(syn::ExprLit {
                lit: syn::Lit::Str(text),
                ..
            }) if pair.path.is_ident("path") => Some(text.value()),
            _ => None,
        }
    })
}

fn described(item: &syn::Item) -> (&[syn::Attribute], Option<String>) {
    use syn::Item;
    match item {
        Item::Const(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Enum(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Fn(item) => (&item.attrs, Some(item.sig.ident.to_string())),
        Item::Impl(item) => (&item.attrs, None),
        Item::Macro(item) => (&item.attrs, item.ident.as_ref().map(ToString::to_string)),
        Item::Mod(item) => (&item.attrs, None),
        Item::Static(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Struct(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Trait(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::TraitAlias(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Type(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Union(item) => (&item.attrs, Some(item.ident.to_string())),
        Item::Use(item) => (&item.attrs, None),
        _ => (&[], None),
    }
}

/// `a/b` and `../c.rs` are `a/c.rs`.
fn join(folder: &str, path: &str) -> String {
    let mut steps: Vec<&str> = folder.split('/').collect();
    for step in path.split('/') {
        match step {
            ".." => {
                steps.pop();
            }
            "." => {}
            step => steps.push(step),
        }
    }
    steps.join("/")
}
