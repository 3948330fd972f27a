//! The command line of `weft`, parsed by clap: commands, arguments and options.

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{
    check, completion, convert, dashboard, diagnostics, dry_run, edges, explain, fault, identity,
    inject, log_level, proxies, proxy_config, release, routes, stat, suggest, tap, token, top,
    uninstall, validate, version,
};
use crate::global::Global;

/// All of it.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    about = "Queries the mesh, and explains it",
    after_help = "Exit status: 0 yes or fine, 1 no, 2 bad usage or input, 3 it could not be found out.",
    disable_help_subcommand = true,
    propagate_version = false
)]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What is to be done.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Check(check::Check),
    Stat(stat::Stat),
    Edges(edges::Edges),
    Routes(routes::Routes),
    Top(top::Top),
    Tap(tap::Tap),
    Explain(explain::Explain),
    Suggest(suggest::Suggest),
    DryRun(dry_run::DryRun),
    Release(release::Release),
    Fault(fault::Fault),
    Proxies(proxies::Proxies),
    ProxyConfig(proxy_config::ProxyConfig),
    LogLevel(log_level::LogLevel),
    Identity(identity::Identity),
    Inject(inject::Inject),
    Uninject(inject::Uninject),
    Validate(validate::Validate),
    Convert(convert::Convert),
    Token(token::Token),
    Dashboard(dashboard::Dashboard),
    Diagnostics(diagnostics::Diagnostics),
    Uninstall(uninstall::Uninstall),
    Version(version::Version),
    Completion(completion::Completion),
}

impl Command {
    /// Whether `-o json` has it print data for a program, which reads why there is none too.
    pub(crate) const fn prints_data(&self) -> bool {
        !matches!(
            self,
            Self::Completion(_)
                | Self::Dashboard(_)
                | Self::Diagnostics(_)
                | Self::Inject(_)
                | Self::LogLevel(_)
                | Self::Top(_)
                | Self::Uninject(_)
                | Self::Uninstall(_)
        )
    }
}

/// The command line as clap knows it, for completions and the reference.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}
