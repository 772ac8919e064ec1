//! Back to the scripts: what is to be done, from what there is.

use std::path::PathBuf;

use super::state::{Observed, State, backup_of};

/// What is done with a script's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it was not adopted.
    Nothing,
    /// The script comes back.
    PutBack {
        /// What is there now; none where nothing is.
        wrapper: Option<String>,
    },
    /// Adopting was cut short: the script is there, and its second name goes.
    Forget,
    /// It stays, for this reason; with the wrapper as it should be and as it is, where that is it.
    Stays(String, Option<(String, String)>),
}

/// What is done with a script's path.
#[must_use]
pub fn of(script: &Observed) -> Step {
    let backup = backup_of(&script.path);
    let backup = backup.display();
    match (&script.state, script.backup) {
        (State::Wrapper(wrapper, _), _) if wrapper.script != script.path => {
            Step::Stays(format!("it is a copy of that for {}", wrapper.script.display()), None)
        }
        (State::Wrapper(wrapper, text), _) if wrapper.text() != *text => Step::Stays(
            format!("it was edited since; {backup} is the script that was here"),
            Some((wrapper.text(), text.clone())),
        ),
        (State::Wrapper(..), None) => {
            Step::Stays(format!("{backup} is gone, and with it the script that was here"), None)
        }
        (State::Wrapper(_, text), Some(_)) => Step::PutBack { wrapper: Some(text.clone()) },
        (_, None) => Step::Nothing,
        (State::Absent, Some(_)) => Step::PutBack { wrapper: None },
        _ if script.is_its_backup() => Step::Forget,
        (_, Some(_)) => Step::Stays(
            format!("it is another script by now; {backup} is the one from before kvmnet"),
            None,
        ),
    }
}

/// A network file that was written for a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// The script.
    pub script: PathBuf,
    /// Whether it is as it was written.
    pub untouched: bool,
}
