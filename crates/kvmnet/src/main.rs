//! The administrator's command: shows, checks, brings up and takes down the networks of guests.

mod adopt;
mod check;
mod cli;
mod error;
mod gather;
mod holders;
mod kernel;
mod print;
mod reload;
mod run;
mod status;
mod udev;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use kvmnet_core::output::{self, Buffer};
use kvmnet_core::{Chain, config, helper};
use log::Level;

use cli::{Cli, Command};
use error::Error;

/// `check` has found mistakes.
const MISTAKES: u8 = 3;

fn main() -> ExitCode {
    if let Some(code) = stand_in() {
        return code;
    }
    let command = Cli::parse().command;
    let log = Buffer::install();
    let changes = command.changes_something();
    let result = execute(command);
    let code = result.unwrap_or_else(|error| {
        let line = output::printable(&Chain(&error).to_string());
        if changes {
            output::to_syslog("kvmnet", Level::Error, &line);
        }
        output::to_stderr(format!("kvmnet: {line}\n").as_bytes());
        ExitCode::FAILURE
    });
    output::to_stderr(&log.take());
    code
}

/// What other programs ask of this one, by words that are no subcommands for people: udev's rule, and
/// a helper that leaves its run to it, `helper VERB TAP`.
fn stand_in() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let word = arguments.next()?;
    if word == udev::SUBCOMMAND {
        return udev::answer(arguments);
    }
    if word != helper::SUBCOMMAND {
        return None;
    }
    let verb = helper::Verb::parse(arguments.next()?.to_str()?)?;
    let arguments = arguments.collect();
    Some(helper::stand_in(verb, arguments, kernel::open, |kernel, network| {
        kernel.inner.settle(network)
    }))
}

fn execute(command: Command) -> Result<ExitCode, Error> {
    let directory = Path::new(config::DIRECTORY);
    match command {
        Command::Status { json, tree, networks } => status::run(directory, json, tree, &networks),
        Command::Check => check::run(directory),
        Command::Plan { verb, network } => run::plan(directory, verb, &network),
        Command::Up { network } => run::up(directory, &network),
        Command::Down { network } => run::down(directory, &network),
        Command::Reload => reload::run(directory),
        Command::Gc => run::gc(directory),
        Command::Adopt { yes, undo, network, scripts } => {
            adopt::run(directory, &adopt::Options { yes, undo, network, scripts })
        }
        Command::Completions { shell } => {
            let mut command = Cli::command();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "kvmnet", &mut script);
            print::whole(&mut io::stdout().lock(), &script)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
