//! `kvmnet status`: what is there, in a table, as a tree, or as JSON.

mod build;
mod model;
mod table;
mod tree;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use kvmnet_core::config::{self, ConfigError, Files};
use kvmnet_core::model::NetworkName;
use kvmnet_core::{Chain, output};

use crate::error::Error;
use crate::gather::gather;
use crate::print;

/// Shows all networks, or those of these names.
///
/// # Errors
/// [`Error`] where the host can't be looked at, or a name is no network's.
pub fn run(
    directory: &Path,
    json: bool,
    tree: bool,
    names: &[NetworkName],
) -> Result<ExitCode, Error> {
    let gathered = gather(directory)?;
    let mut status = build::build(&gathered);
    for name in names {
        if !status.networks.iter().any(|network| network.name.as_deref() == Some(name.as_str())) {
            return Err(why_not_there(directory, name));
        }
    }
    if !names.is_empty() {
        let is_named = |name: &str| names.iter().any(|wanted| wanted.as_str() == name);
        status.networks.retain(|network| network.name.as_deref().is_some_and(is_named));
    }
    if json {
        let mut text = serde_json::to_string_pretty(&status).map_err(io::Error::from)?;
        text.push('\n');
        print::whole(&mut io::stdout().lock(), text.as_bytes())?;
    } else if tree {
        print::coloured(&tree::draw(&status))?;
    } else {
        print::coloured(&table::draw(&status))?;
    }
    for mistake in &gathered.mistakes {
        let line = output::printable(&Chain(mistake).to_string());
        output::to_stderr(format!("kvmnet: {line}\n").as_bytes());
    }
    let is_whole = gathered.mistakes.is_empty();
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Why no network of that name is shown: it has no file, or that is wrong.
fn why_not_there(directory: &Path, name: &NetworkName) -> Error {
    match Files::list(directory).by_name(name, "the command line") {
        Ok(_) | Err(ConfigError::NoSuchNetwork { .. }) => {
            let path = config::path_of(directory, name);
            Error::NoSuchNetwork { network: name.clone(), path }
        }
        Err(error) => error.into(),
    }
}
