//! What is asked of firewalld, and what it is told.

use std::time::Instant;

use kvmnet_core::kernel::KernelError;
use kvmnet_core::model::{ZoneChange, ZoneChangeKind, ZoneName, ZoneView};
use rustbus::message_builder::MarshalledMessageBody;

use crate::bus::{Bus, BusError};

const NAME: &str = "org.fedoraproject.FirewallD1";
/// What holds now: object and interface.
const RUNTIME: (&str, &str, &str) =
    (NAME, "/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1.zone");
/// What holds after each reload.
const PERMANENT: (&str, &str, &str) =
    (NAME, "/org/fedoraproject/FirewallD1/config", "org.fedoraproject.FirewallD1.config");

/// firewalld, by a bus that was signed in to.
#[derive(Debug)]
pub struct Zones {
    bus: Bus,
}

impl Zones {
    /// Signs in, by `deadline`.
    pub fn open(deadline: Instant) -> Result<Self, BusError> {
        Ok(Self { bus: Bus::open(deadline)? })
    }

    /// From now on all has to be said by another time.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.bus.set_deadline(deadline);
    }

    /// What zone an interface is in, and whether firewalld knows the one that is wanted.
    pub fn view(
        &mut self,
        interface: &str,
        wanted: Option<&ZoneName>,
    ) -> Result<ZoneView, BusError> {
        let current = self.text(RUNTIME, "getZoneOfInterface", &[interface])?;
        let current = Some(current).filter(|zone| !zone.is_empty());
        let is_wanted = |zone: &ZoneName| current.as_deref() == Some(zone.as_str());
        let permanent = match &current {
            Some(current) => self.text(PERMANENT, "getZoneOfInterface", &[interface])? == *current,
            None => false,
        };
        let is_known = match wanted {
            Some(zone) if !is_wanted(zone) => {
                let zones = self.bus.call(RUNTIME, "getZones", &[])?;
                let zones: Vec<String> = zones.parser().get()?;
                zones.iter().any(|known| known == zone.as_str())
            }
            _ => true,
        };
        Ok(ZoneView::Answered { current, permanent, is_known })
    }

    /// Carries out a change; one that is made already counts as done.
    pub fn apply(&mut self, change: &ZoneChange) -> Result<(), BusError> {
        let ZoneChange { bridge, kind } = change;
        let (method, zone) = match kind {
            ZoneChangeKind::Enter(zone) => ("changeZoneOfInterface", zone.as_str()),
            ZoneChangeKind::Leave(zone) => ("removeInterface", zone.as_str()),
        };
        match self.bus.call(RUNTIME, method, &[zone, bridge]) {
            Ok(_) => Ok(()),
            // A reload came between the look and this: the interface is in no zone, or in another.
            Err(BusError::Refused { message, .. })
                if matches!(kind, ZoneChangeKind::Leave(_))
                    && ["UNKNOWN_INTERFACE", "ZONE_CONFLICT", "INVALID_ZONE"]
                        .iter()
                        .any(|code| message.contains(code)) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn text(
        &mut self,
        object: (&str, &str, &str),
        method: &str,
        arguments: &[&str],
    ) -> Result<String, BusError> {
        let answer: MarshalledMessageBody = self.bus.call(object, method, arguments)?;
        Ok(answer.parser().get()?)
    }
}

/// A change that was not made.
pub fn failed(ZoneChange { bridge, kind }: &ZoneChange, error: &BusError) -> KernelError {
    let what = match kind {
        ZoneChangeKind::Enter(zone) => format!("put {bridge} into its zone {zone}"),
        ZoneChangeKind::Leave(zone) => format!("take {bridge} out of its zone {zone}"),
    };
    KernelError::Firewalld { what, problem: describe(error) }
}

/// Why firewalld doesn't answer, and what to do.
pub fn describe(error: &BusError) -> String {
    const NOT_THERE: [&str; 2] =
        ["org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"];
    match error {
        BusError::Refused { name, .. } if NOT_THERE.contains(&name.as_str()) => {
            "its rules are there, but it does not run; start it, then kvmnet reload, or delete what \
             is left of it: nft delete table inet firewalld"
                .to_owned()
        }
        BusError::Refused { message, .. } => format!(
            "it says {message:?}; put that right (journalctl -u firewalld), then kvmnet reload"
        ),
        BusError::Late => "it has not answered over D-Bus in 3 s; see what it waits for \
                           (firewall-cmd --state), then kvmnet reload"
            .to_owned(),
        BusError::Socket(_) | BusError::NotWelcome(_) | BusError::Garbled => format!(
            "it cannot be asked over D-Bus ({error}); see that D-Bus runs (firewall-cmd --state), \
             then kvmnet reload"
        ),
    }
}
