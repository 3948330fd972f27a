//! Reads the fields of one section of a spec, and records validation errors, each with the path of
//! its field.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{Method, header::HeaderName};
use policy::{
    name::ServiceId,
    traffic::{
        bounds::RETRY_LISTED,
        set::{Methods, Percent, Statuses},
    },
};

use crate::{
    label_syntax::is_dns_label,
    near::hint,
    smi::validation::{Code, Mistakes, unusual_method},
    weft::{
        duration::written,
        parse_duration,
        share::{Hundredths, parse_percent},
    },
};

/// What every mistake of a section ends with.
const IGNORED: &str = "this section is ignored";
/// Characters of a value that a text shows.
const SHOWN: usize = 60;
/// A name in HTTP.
const LONGEST_METHOD: usize = 32;

/// Reads fields. What cannot be read is said, and costs the section.
pub(super) struct FieldReader<'a> {
    pub(super) namespace: &'a str,
    /// The Service that the policy is about.
    pub(super) own: Option<&'a ServiceId>,
    mistakes: &'a mut Mistakes,
    failed: bool,
    ending: &'static str,
}

impl<'a> FieldReader<'a> {
    pub(super) fn new(
        namespace: &'a str,
        own: Option<&'a ServiceId>,
        mistakes: &'a mut Mistakes,
    ) -> Self {
        Self {
            namespace,
            own,
            mistakes,
            failed: false,
            ending: IGNORED,
        }
    }

    /// Reads one section, or one entry that stands for itself: `None` if anything in it is
    /// wrong.
    pub(super) fn whole<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.whole_of(IGNORED, read)
    }

    /// The same, for what is called otherwise.
    pub(super) fn whole_of<T>(
        &mut self,
        ending: &'static str,
        read: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let before = std::mem::take(&mut self.failed);
        let previous = std::mem::replace(&mut self.ending, ending);
        let read = read(self);
        self.ending = previous;
        let failed = std::mem::replace(&mut self.failed, before);
        read.filter(|_| !failed)
    }

    pub(super) fn wrong(&mut self, field: &str, text: &str) {
        self.failed = true;
        self.mistakes
            .invalid(field, format!("{text}; {}", self.ending));
    }

    /// Reports something that costs nothing.
    pub(super) fn caution(&mut self, field: &str, code: Code, text: &str) {
        self.mistakes.warn(code, field, text);
    }

    /// A mistake that others found.
    pub(super) fn mistakes(&mut self) -> &mut Mistakes {
        self.mistakes
    }

    pub(super) fn number<N: TryFrom<i64> + Copy + PartialOrd + std::fmt::Display>(
        &mut self,
        field: &str,
        raw: i64,
        range: &RangeInclusive<N>,
    ) -> Option<N> {
        let read = N::try_from(raw).ok().filter(|read| range.contains(read));
        if read.is_none() {
            let (least, most) = (range.start(), range.end());
            self.wrong(
                field,
                &format!("is {raw}, but must be from {least} to {most}"),
            );
        }
        read
    }

    /// The same where a default stands for what is left out.
    pub(super) fn number_or<N: TryFrom<i64> + Copy + PartialOrd + std::fmt::Display>(
        &mut self,
        field: &str,
        raw: Option<i64>,
        range: &RangeInclusive<N>,
        or: N,
    ) -> N {
        match raw {
            Some(raw) => self.number(field, raw, range).unwrap_or(or),
            None => or,
        }
    }

    pub(super) fn percent_or(
        &mut self,
        field: &str,
        raw: Option<i64>,
        least: u8,
        or: Percent,
    ) -> Percent {
        let read = self.number_or(field, raw, &(least..=100), or.get());
        Percent::at_most(read)
    }

    pub(super) fn duration_or(
        &mut self,
        field: &str,
        text: Option<&str>,
        range: &RangeInclusive<Duration>,
        or: Duration,
    ) -> Duration {
        let Some(text) = text else { return or };
        match parse_duration(text) {
            Err(bad) => self.wrong(field, &format!("is {:?}, but {bad}", shown(text))),
            Ok(read) if range.contains(&read) => return read,
            Ok(_) => {
                let (least, most) = (written(*range.start()), written(*range.end()));
                let text = shown(text);
                self.wrong(
                    field,
                    &format!("is {text:?}, but must be from {least} to {most}"),
                );
            }
        }
        or
    }

    /// A share, as a part of 1; `None` where none is written, or where it cannot be read.
    pub(super) fn fraction(
        &mut self,
        field: &str,
        text: Option<&str>,
        range: &RangeInclusive<Hundredths>,
    ) -> Option<f64> {
        let text = text?;
        match parse_percent(text) {
            Err(bad) => self.wrong(field, &format!("is {:?}, but {bad}", shown(text))),
            Ok(read) if range.contains(&read) => return Some(read.fraction()),
            Ok(_) => {
                let (least, most) = (range.start(), range.end());
                let text = shown(text);
                self.wrong(
                    field,
                    &format!("is {text:?}, but must be from {least} to {most}"),
                );
            }
        }
        None
    }

    /// One of a closed list of names.
    pub(super) fn one_of<T: Copy>(
        &mut self,
        field: &str,
        text: &str,
        known: &[(&'static str, T)],
    ) -> Option<T> {
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let names = known.iter().map(|(name, _)| *name);
        let meant = hint(text, names.clone());
        let names: Vec<&str> = names.collect();
        let text = shown(text);
        self.wrong(
            field,
            &format!("is {text:?}, but must be {}{meant}", any_of(&names)),
        );
        None
    }

    pub(super) fn one_of_or<T: Copy>(
        &mut self,
        field: &str,
        text: Option<&str>,
        known: &[(&'static str, T)],
        or: T,
    ) -> T {
        text.and_then(|text| self.one_of(field, text, known))
            .unwrap_or(or)
    }

    /// Whether a list is not too long.
    pub(super) fn fits<T>(&mut self, field: &str, list: &[T], most: usize) -> bool {
        let fits = list.len() <= most;
        if !fits {
            self.wrong(
                field,
                &format!("has {} entries, but may have {most}", list.len()),
            );
        }
        fits
    }

    pub(super) fn statuses_or(
        &mut self,
        field: &str,
        codes: Option<&[i64]>,
        range: &RangeInclusive<u16>,
        or: Statuses,
    ) -> Statuses {
        let Some(codes) = codes else { return or };
        if !self.fits(field, codes, RETRY_LISTED) {
            return or;
        }
        let read = codes.iter().enumerate();
        let read = read.filter_map(|(i, raw)| self.number(&format!("{field}[{i}]"), *raw, range));
        let read: Vec<u16> = read.collect();
        Statuses::of(&read)
    }

    pub(super) fn methods_or_safe(&mut self, field: &str, methods: Option<&[String]>) -> Methods {
        let Some(methods) = methods else {
            return Methods::SAFE;
        };
        if !self.fits(field, methods, RETRY_LISTED) {
            return Methods::SAFE;
        }
        let any = methods.iter().any(|method| method == "*");
        if methods.is_empty() {
            let text = "is empty, so no request fits it; leave it out for GET, HEAD and OPTIONS";
            self.caution(field, Code::FieldIgnored, text);
        }
        let mut read = Vec::new();
        for (i, text) in methods.iter().enumerate() {
            let field = format!("{field}[{i}]");
            if any && text != "*" {
                let text = "says nothing beside \"*\", which is every method; take one of them out";
                self.caution(&field, Code::FieldIgnored, text);
            }
            let method = Method::from_bytes(text.as_bytes());
            match method {
                Ok(method) if text.len() <= LONGEST_METHOD => {
                    self.warn_of_unusual(&field, text);
                    read.push(method);
                }
                _ => {
                    let text = format!("is {:?}, which is no method of HTTP", shown(text));
                    self.wrong(&field, &text);
                }
            }
        }
        if any {
            Methods::Any
        } else {
            Methods::Only(read.into())
        }
    }

    /// Warns of methods that no client is likely to send.
    fn warn_of_unusual(&mut self, field: &str, method: &str) {
        if method == "*" {
            return;
        }
        if let Some(text) = unusual_method(method) {
            self.caution(field, Code::UnusualMethod, &text);
        }
    }

    pub(super) fn header(&mut self, field: &str, name: &str) -> Option<HeaderName> {
        let read = HeaderName::from_bytes(name.as_bytes()).ok();
        if read.is_none() {
            self.wrong(
                field,
                &format!("is {:?}, which is no name of a header", shown(name)),
            );
        }
        read
    }

    /// One that identifies callers. The mesh removes its own from their requests.
    pub(super) fn callers_header(&mut self, field: &str, name: &str) -> Option<HeaderName> {
        let read = self.header(field, name)?;
        if is_own_header(&read) {
            let text = format!(
                "is {read}, which no caller can send: all requests have the same value, none. \
                 Type Caller separates callers by their identity"
            );
            self.caution(field, Code::FieldIgnored, &text);
        }
        Some(read)
    }

    /// A Service of the policy's namespace, by its bare name.
    pub(super) fn service(&mut self, field: &str, name: &str) -> Option<ServiceId> {
        if !is_dns_label(name) {
            let text = format!(
                "is {:?}, but must be the name of a Service of namespace {:?}",
                shown(name),
                self.namespace
            );
            self.wrong(field, &text);
            return None;
        }
        Some(ServiceId::new(self.namespace, name))
    }

    /// The same, and another one than the policy is about.
    pub(super) fn other_service(
        &mut self,
        field: &str,
        name: &str,
        what: &str,
    ) -> Option<ServiceId> {
        let service = self.service(field, name)?;
        if self.own == Some(&service) {
            let text = format!("is {name:?}, but a Service cannot be its own {what}; name another");
            self.wrong(field, &text);
            return None;
        }
        Some(service)
    }
}

/// Whether the mesh owns it: many applications read any mark in a name as the hyphen.
pub(super) fn is_own_header(name: &HeaderName) -> bool {
    let behind = name.as_str().strip_prefix("weft");
    behind.is_some_and(|rest| rest.starts_with(|mark: char| !mark.is_ascii_alphanumeric()))
}

/// The beginning of a user's text.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// `a, b or c`.
fn any_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}
