//! Scripts, files and host in; what is to be written, or why not, out. Nothing is touched here.

use std::path::{Path, PathBuf};

use kvmnet_core::config::{self, Configured};
use kvmnet_core::model::NetworkName;

use super::choice;
use super::meaning::{self, Host, Meaning};
use super::network::Written;
use super::reading::{self, Reading};
use super::state::{Identity, Observed, State};
use super::wrapper::{self, Wrapper};

/// What scripts are adopted with.
#[derive(Clone)]
pub struct Circumstances<'a> {
    /// The directory of the network files.
    pub directory: &'a Path,
    /// The networks that have a file.
    pub networks: Vec<Configured>,
    /// What of the host decides.
    pub host: Host,
    /// Where a program of kvmnet's is, by its name; none where it isn't installed.
    pub helper: &'a dyn Fn(&str) -> Option<PathBuf>,
    /// The network that is named on the command line.
    pub named: Option<NetworkName>,
}

/// A network file that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// The network.
    pub name: NetworkName,
    /// Its path.
    pub path: PathBuf,
    /// What it says.
    pub written: Written,
}

/// What becomes of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is kvmnet's already.
    Already,
    /// It stays as it is, for these reasons.
    Stays(Vec<String>),
    /// The wrapper takes its place.
    Adopted {
        /// The wrapper.
        wrapper: Wrapper,
        /// The script as it was read.
        text: String,
        /// Which file that was.
        identity: Identity,
    },
}

/// A script and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptPlan {
    /// Its path.
    pub path: PathBuf,
    /// What it does.
    pub reading: Option<Reading>,
    /// The network that its taps join, in words.
    pub network: Option<String>,
    /// What is to be known.
    pub notes: Vec<String>,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What is to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The scripts.
    pub scripts: Vec<ScriptPlan>,
    /// The network files.
    pub files: Vec<NewFile>,
}

/// The other half of a script: that for a tap that goes, or that comes.
#[must_use]
pub fn other_half(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let (from, to) = if is_down(path) { ("down", "up") } else { ("up", "down") };
    let at = name.rfind(from)?;
    Some(path.with_file_name(format!("{}{to}{}", &name[..at], &name[at + from.len()..])))
}

/// Whether that is, by its name, for a tap that goes.
#[must_use]
pub fn is_down(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains("down"))
}

/// Plans for scripts, each with its other half where that is among them.
#[must_use]
pub fn plan(scripts: &[Observed], circumstances: &Circumstances) -> Plan {
    let mut plan = Plan::default();
    let mut circumstances = circumstances.clone();
    let at = |path: &Path| scripts.iter().find(|script| script.path == path);
    for script in scripts {
        let half = other_half(&script.path).and_then(|path| at(&path));
        match (is_down(&script.path), half) {
            // It comes with the other.
            (true, Some(_)) => {}
            (true, None) => couple(None, Some(script), &mut circumstances, &mut plan),
            (false, half) => couple(Some(script), half, &mut circumstances, &mut plan),
        }
    }
    plan
}

fn couple(
    up: Option<&Observed>,
    down: Option<&Observed>,
    circumstances: &mut Circumstances,
    plan: &mut Plan,
) {
    // What it was made into tells what it was.
    let adopted = |script: &Observed| match &script.state {
        State::Wrapper(wrapper, _) => Some(wrapper.helper.ends_with("kvmnet-natup")),
        _ => None,
    };
    let mut is_nat = up.and_then(adopted);
    let half = |script: Option<&Observed>| script.map(|script| Half::of(script, circumstances));
    let (mut up, mut down) = (half(up), half(down));
    let mut file = None;
    if let Some(up) = &mut up {
        is_nat = is_nat.or(up.judge_up(circumstances, &mut file));
    }
    if let Some(down) = &mut down {
        let reading = up.as_ref().and_then(|up| up.script.reading.clone());
        down.judge_down(reading.as_ref(), is_nat, circumstances);
    }
    let is_stuck = |half: &Option<Half>| half.as_ref().is_some_and(|half| half.is_stuck());
    let (up_is_stuck, down_is_stuck) = (is_stuck(&up), is_stuck(&down));
    if let (Some(up), Some(down)) = (&mut up, &mut down) {
        if up_is_stuck && !down_is_stuck {
            down.stay_with(&up.script.path);
        } else if down_is_stuck && !up_is_stuck {
            up.stay_with(&down.script.path);
        }
    }
    if let (Some(file), false, false) = (file, up_is_stuck, down_is_stuck) {
        let parsed = config::parse(&file.path, &file.written.text(), &file.name);
        if let Ok(parsed) = parsed {
            let (name, path) = (file.name.clone(), file.path.clone());
            circumstances.networks.push(Configured { name, path, file: parsed });
        }
        plan.files.push(file);
    }
    plan.scripts.extend(up.into_iter().chain(down).map(|half| half.script));
}

/// A script that is being judged.
struct Half {
    script: ScriptPlan,
    /// What it is to be replaced by, once the program is known.
    pending: Option<(String, Identity)>,
}

impl Half {
    fn of(observed: &Observed, circumstances: &Circumstances) -> Self {
        let mut script = ScriptPlan {
            path: observed.path.clone(),
            reading: None,
            network: None,
            notes: Vec::new(),
            outcome: Outcome::Stays(Vec::new()),
        };
        let mut pending = None;
        let mut reasons = Vec::new();
        match &observed.state {
            State::Link => script.outcome = Outcome::Already,
            State::Wrapper(wrapper, text) => {
                script.outcome = Outcome::Already;
                if wrapper.script != observed.path {
                    script
                        .notes
                        .push(format!("it is a copy of that for {}", wrapper.script.display()));
                } else if wrapper.text() != *text {
                    script.notes.push("it was edited since".to_owned());
                }
            }
            State::Absent => reasons.push("is not there".to_owned()),
            State::Unusable(why) => reasons.push(why.clone()),
            State::Script { text, identity } => {
                let reading = reading::read(text);
                if circumstances.named.is_none() {
                    reasons.extend(reading.problems.iter().map(of_line));
                    if let Some(first) = reading.dhcp.first() {
                        reasons.push(format!(
                            "line {}: serves DHCP, which kvmnet does not: dnsmasq, say, has to become a \
                             service of the host's",
                            first.line
                        ));
                    }
                }
                script.reading = Some(reading);
                if observed.backup.is_some() && !observed.is_its_backup() {
                    reasons.push(format!(
                        "{} is there already, and another file: move it away",
                        super::state::backup_of(&observed.path).display()
                    ));
                }
                if !wrapper::can_name(&observed.path) {
                    reasons.push("its path would need quotes: give it a plain name".to_owned());
                }
                pending = Some((text.clone(), *identity));
            }
        }
        if script.outcome != Outcome::Already {
            script.outcome = Outcome::Stays(reasons);
        }
        Self { script, pending }
    }

    fn is_stuck(&self) -> bool {
        matches!(self.script.outcome, Outcome::Stays(_))
    }

    fn reasons(&mut self) -> Option<&mut Vec<String>> {
        match &mut self.script.outcome {
            Outcome::Stays(reasons) => Some(reasons),
            _ => None,
        }
    }

    fn stay_with(&mut self, other: &Path) {
        if matches!(self.script.outcome, Outcome::Adopted { .. }) {
            let why = format!("its other half, {}, stays", other.display());
            self.script.outcome = Outcome::Stays(vec![why]);
        }
    }

    fn note(&mut self, notes: impl IntoIterator<Item = String>) {
        self.script.notes.extend(notes);
    }

    /// Puts the program in its place, unless there are reasons not to.
    fn adopt(&mut self, helper: &str, network: Option<NetworkName>, circumstances: &Circumstances) {
        let program = (circumstances.helper)(helper);
        let path = self.script.path.clone();
        let Some(reasons) = self.reasons() else { return };
        let Some(helper) = program else {
            reasons.push(format!("{helper} is not installed: make install"));
            return;
        };
        if !reasons.is_empty() {
            return;
        }
        if let Some((text, identity)) = self.pending.take() {
            let wrapper = Wrapper { script: path, helper, network };
            self.script.outcome = Outcome::Adopted { wrapper, text, identity };
        }
    }

    /// Whether it is for a network that kvmnet makes; none where that isn't known.
    fn judge_up(
        &mut self,
        circumstances: &Circumstances,
        file: &mut Option<NewFile>,
    ) -> Option<bool> {
        let Some(reading) = &self.script.reading else { return None };
        let Meaning { joined, reasons, notes } = meaning::of_up(reading, &circumstances.host);
        self.note(notes);
        let chosen = match &circumstances.named {
            Some(name) => {
                let all = reading_of_problems(self.script.reading.as_ref()).chain(reasons);
                let all: Vec<_> = all.map(|why| format!("in spite of: {why}")).collect();
                self.note(all);
                choice::named(&self.script.path, name, joined.as_ref(), circumstances)
            }
            None => {
                if let Some(own) = self.reasons() {
                    own.extend(reasons);
                }
                let joined = joined?;
                choice::found(&self.script.path, &joined, circumstances)
            }
        };
        let chosen = match chosen {
            Ok(chosen) => chosen,
            Err(why) => {
                if let Some(reasons) = self.reasons() {
                    reasons.extend(why);
                }
                return None;
            }
        };
        self.note(chosen.note.clone());
        self.script.network = Some(chosen.words.clone());
        let has_taps = circumstances.networks.iter().any(|network| !network.file.taps.is_empty());
        let is_own_choice = match &chosen.name {
            None => true,
            Some(name) => chosen.managed && *name == config::default_name() && !has_taps,
        };
        if chosen.name.is_none() && has_taps {
            self.note(["taps that a network file names in its taps join that network".to_owned()]);
        }
        let helper = if chosen.managed { "kvmnet-natup" } else { "kvmnet-ifup" };
        self.adopt(helper, chosen.name.filter(|_| !is_own_choice), circumstances);
        *file = chosen.file;
        Some(chosen.managed)
    }

    fn judge_down(
        &mut self,
        up: Option<&Reading>,
        is_nat: Option<bool>,
        circumstances: &Circumstances,
    ) {
        let Some(reading) = self.script.reading.clone() else { return };
        let reasons = meaning::of_down(&reading, up);
        if circumstances.named.is_some() {
            let all = reading_of_problems(Some(&reading)).chain(reasons);
            let all: Vec<_> = all.map(|why| format!("in spite of: {why}")).collect();
            self.note(all);
        } else if let Some(own) = self.reasons() {
            own.extend(reasons);
        }
        let is_nat = is_nat.unwrap_or(!reading.deletes.is_empty());
        if is_nat && reading.deletes.is_empty() {
            self.note([
                "it leaves the bridge; kvmnet-natdown takes it down with the last guest".into()
            ]);
        }
        self.adopt(if is_nat { "kvmnet-natdown" } else { "kvmnet-ifdown" }, None, circumstances);
    }
}

fn reading_of_problems(reading: Option<&Reading>) -> impl Iterator<Item = String> + use<> {
    let problems: Vec<String> = reading
        .into_iter()
        .flat_map(|reading| {
            reading.problems.iter().map(of_line).chain(reading.dhcp.iter().map(of_dhcp))
        })
        .collect();
    problems.into_iter()
}

fn of_line(remark: &reading::Remark) -> String {
    let reading::Remark { line, text, why } = remark;
    if text.is_empty() {
        format!("line {line}: {why}")
    } else {
        format!("line {line}: {text}: {why}")
    }
}

fn of_dhcp(remark: &reading::Remark) -> String {
    format!(
        "line {}: {}: kvmnet serves no DHCP; it has to become a service of the host's",
        remark.line, remark.text
    )
}
