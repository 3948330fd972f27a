//! Parses an incomplete command line word by word, for completion: what clap would refuse, because
//! something is missing or wrong, may be right with the next word.

use clap::{Arg, Command};

/// What was read of a line.
pub(crate) struct Line<'a> {
    pub(crate) command: &'a Command,
    /// Words of the command that belong to no option.
    pub(crate) position: usize,
    /// Options, with their values.
    pub(crate) given: Vec<(&'a Arg, Option<String>)>,
    /// The option that wants the next word.
    pub(crate) open: Option<&'a Arg>,
    /// Behind `--` no word is an option.
    plain: bool,
}

impl<'a> Line<'a> {
    /// Nothing yet, of a command that is built.
    pub(crate) fn new(command: &'a Command) -> Self {
        Self {
            command,
            position: 0,
            given: Vec::new(),
            open: None,
            plain: false,
        }
    }

    /// Reads the next word.
    pub(crate) fn read(&mut self, word: &str) {
        let command = self.command;
        if let Some(option) = self.open.take() {
            self.given.push((option, Some(word.to_owned())));
        } else if self.plain {
            self.position += 1;
        } else if word == "--" {
            self.plain = true;
        } else if let Some(long) = word.strip_prefix("--") {
            self.long(long);
        } else if let Some(letters) = word.strip_prefix('-') {
            self.letters(letters);
        } else if let Some(command) = command.find_subcommand(word) {
            self.command = command;
            self.position = 0;
        } else {
            self.position += 1;
        }
    }

    /// An option of every command that stands on both sides of the command's name. There clap
    /// takes the second one, without a word; on one side it refuses both.
    pub(crate) fn given_twice(&self) -> Option<&'a Arg> {
        let mut all = self.given.iter().enumerate();
        let twice = all.find(|(at, (option, _))| {
            let mut before = self.given[..*at].iter();
            option.is_global_set() && before.any(|(other, _)| other.get_id() == option.get_id())
        });
        twice.map(|(_, (option, _))| *option)
    }

    fn long(&mut self, text: &str) {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let Some(option) = by_name(self.command, name) else {
            return;
        };
        if value.is_none() && option.get_action().takes_values() {
            self.open = Some(option);
        } else {
            self.given.push((option, value));
        }
    }

    /// Options of one letter: some may stand in one word, and what follows one that takes a
    /// value is that.
    fn letters(&mut self, letters: &str) {
        let command = self.command;
        let mut left = letters.chars();
        while let Some(letter) = left.next() {
            let mut all = command.get_arguments();
            let Some(option) = all.find(|arg| arg.get_short() == Some(letter)) else {
                return;
            };
            if !option.get_action().takes_values() {
                self.given.push((option, None));
                continue;
            }
            let value = left.as_str();
            if value.is_empty() {
                self.open = Some(option);
            } else {
                let value = value.strip_prefix('=').unwrap_or(value);
                self.given.push((option, Some(value.to_owned())));
            }
            return;
        }
    }
}

/// The option of a command that has this long name.
pub(crate) fn by_name<'a>(command: &'a Command, long: &str) -> Option<&'a Arg> {
    let mut all = command.get_arguments();
    all.find(|arg| arg.get_long() == Some(long))
}
