//! Answers of the kernel as it gives them, with every kind of damage: whatever comes, a run ends, and
//! takes nothing for whole that isn't.
//!
//! The answers are real ones (`fixtures/answers`). `KVMNET_RECORD=1 cargo test -p kvmnet-core fuzz::`
//! records them anew.

pub(super) mod conversation;
mod damage;
mod questions;

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, thread};

use neli::consts::nl::NlmF;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::KernelError;
use super::attributes::{aligned, read_u16, read_u32};
use super::nftables;
use super::socket::Socket;
use crate::config::default_nat;
use crate::plan::table_of;
use conversation::{Answer, Conversation, Player, Recorder};
use damage::Damage;
use questions::{HOST, QUESTIONS, Question};

fn file(question: &Question) -> PathBuf {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/answers");
    PathBuf::from(directory).join(question.name)
}

fn kept(question: &Question) -> Conversation {
    let path = file(question);
    let text = fs::read_to_string(&path);
    Conversation::from_text(&text.unwrap_or_else(|why| panic!("{}: {why}", path.display())))
}

fn played(question: &Question, conversation: &Conversation) -> Result<String, KernelError> {
    (question.ask)(&mut Socket::over(Player::of(conversation)))
}

/// On a thread with a network namespace of its own, which ends with it, after a script.
pub(super) fn on_a_host<T: Send + 'static>(
    script: &str,
    ask: impl FnOnce() -> T + Send + 'static,
) -> T {
    let script = script.to_owned();
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("only root can make a network namespace");
        let made = Command::new("sh").args(["-ec", &script]).output().expect("a shell");
        assert!(made.status.success(), "{script}: {}", String::from_utf8_lossy(&made.stderr));
        ask()
    };
    thread::spawn(run).join().expect("all is answered")
}

/// Also what keeps the answers true: they are those of a kernel to the questions that are asked now.
#[test]
fn played_again_it_is_understood_as_from_the_kernel() {
    on_a_host(HOST, || {
        let table = table_of(&default_nat()).expect("the network has rules");
        let mut socket = Socket::open(neli::consts::socket::NlFamily::Netfilter).expect("a socket");
        nftables::install_table(&mut socket, &table, false).expect("a table");
        for question in &QUESTIONS {
            let (recorder, record) = Recorder::open(question.family);
            let live = (question.ask)(&mut Socket::over(recorder)).expect("an answer");
            assert!(live.len() > 2, "{} tells nothing: {live}", question.name);
            let record = record.borrow();
            assert_eq!(played(question, &record).expect("the same"), live, "{}", question.name);
            assert_eq!(Conversation::from_text(&record.to_text()), *record);
            if env::var_os("KVMNET_RECORD").is_some() {
                fs::write(file(question), record.to_text()).expect("the fixtures can be written");
            }
            let is_as_kept = kept(question).0.len() == record.0.len();
            assert!(is_as_kept, "{} is asked otherwise: record it anew", question.name);
        }
    });
}

#[test]
fn no_answer_that_is_cut_short_passes_for_whole() {
    for question in &QUESTIONS {
        let whole = kept(question);
        let told = played(question, &whole).expect("an answer");
        let datagrams = whole.clone().datagrams_mut().count();
        for number in 0..datagrams {
            for cut in 0.. {
                let mut conversation = whole.clone();
                let datagram = conversation.datagrams_mut().nth(number).expect("it is there");
                if cut >= datagram.len() {
                    break;
                }
                // What lacks whole messages is what a kernel could have sent: `MSG_TRUNC` tells of those.
                if cut > 0 && message_ends(datagram).contains(&cut) {
                    continue;
                }
                datagram.truncate(cut);
                let mut socket = Socket::over(Player::insisting(&conversation));
                match (question.ask)(&mut socket) {
                    Err(KernelError::Answer { .. }) => {}
                    // What is missing is the padding of a message's last part.
                    Ok(now) => assert_eq!(now, told, "{}, {number} at {cut}", question.name),
                    Err(error) => panic!("{}, {number} at {cut}: {error}", question.name),
                }
            }
        }
    }
}

/// The same of a message whose own length is right: its last attribute lacks four bytes.
#[test]
fn no_object_that_is_cut_short_passes_for_whole() {
    for question in &QUESTIONS {
        let whole = kept(question);
        for number in 0..whole.clone().datagrams_mut().count() {
            for message in 0.. {
                let mut conversation = whole.clone();
                let datagram = conversation.datagrams_mut().nth(number).expect("it is there");
                let ends = message_ends(datagram);
                let Some(&end) = ends.get(message) else { break };
                let start = message.checked_sub(1).map_or(0, |before| ends[before]);
                if read_u16(&datagram[start + 4..]) < Some(libc::NLMSG_MIN_TYPE as u16) {
                    continue;
                }
                // An attribute without a value would go as a whole.
                let is_empty = |cut: &usize| read_u16(&datagram[end - cut..]) == Some(4);
                let cut = (4..).step_by(4).find(|cut| !is_empty(cut)).expect("one has a value");
                datagram.drain(end - cut..end);
                let length = (end - start - cut) as u32;
                datagram[start..start + 4].copy_from_slice(&length.to_ne_bytes());
                let mut socket = Socket::over(Player::insisting(&conversation));
                let answer = (question.ask)(&mut socket);
                let is_noticed = matches!(answer, Err(KernelError::Answer { .. }));
                assert!(is_noticed, "{}, {number}, {message}: {answer:?}", question.name);
            }
        }
    }
}

/// Where messages end, with their padding.
fn message_ends(datagram: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    while let Some(length) = datagram.get(at..).and_then(read_u32) {
        at += aligned(length as usize);
        ends.push(at);
    }
    ends
}

type Change<'a> = &'a dyn Fn(&mut Vec<Answer>);

/// Lets the first send be answered with something else.
fn with_first(
    question: &Question,
    change: impl FnOnce(&mut Vec<Answer>),
    then: bool,
) -> (Result<String, KernelError>, String) {
    let whole = kept(question);
    let told = played(question, &whole).expect("an answer");
    let mut conversation = Conversation(whole.0[..1].to_vec());
    change(&mut conversation.0[0]);
    if then {
        conversation.0.extend(whole.0);
    }
    (played(question, &conversation), told)
}

#[test]
fn what_changed_while_it_was_read_and_what_got_lost_is_asked_for_again() {
    let lose = |answers: &mut Vec<Answer>| drop(answers.pop());
    let overrun = |answers: &mut Vec<Answer>| answers[0] = Answer::Error(Errno::ENOBUFS);
    let interrupt = |answers: &mut Vec<Answer>| {
        let Answer::Datagram(bytes) = &mut answers[0] else { panic!("a datagram") };
        bytes[6] |= NlmF::DUMP_INTR.bits() as u8;
    };
    let foreign = |answers: &mut Vec<Answer>| {
        for answer in answers {
            let Answer::Datagram(bytes) = answer else { panic!("a datagram") };
            // Of a send long ago: the messages behind it are nobody's either.
            bytes.truncate(u32::from_ne_bytes(bytes[..4].try_into().expect("four")) as usize);
            bytes[8..12].copy_from_slice(&0x8000_0000u32.to_ne_bytes());
        }
    };
    for question in &QUESTIONS {
        let changes: [(&str, Change); 4] = [
            ("lost", &lose),
            ("overrun", &overrun),
            ("interrupted", &interrupt),
            ("foreign", &foreign),
        ];
        for (what, change) in changes {
            let (again, told) = with_first(question, change, true);
            assert_eq!(again.ok(), Some(told), "{} {what}", question.name);
            let (for_ever, _) = with_first(question, change, false);
            assert!(for_ever.is_err(), "{} {what}: {for_ever:?}", question.name);
        }
        let interrupted_call = |answers: &mut Vec<Answer>| {
            answers.insert(0, Answer::Error(Errno::EINTR));
        };
        let (whole, told) = with_first(question, interrupted_call, false);
        if kept(question).0.len() == 1 {
            assert_eq!(whole.ok(), Some(told), "{}: EINTR", question.name);
        }
    }
}

/// A dump that ends in an error, between its parts or with them.
#[test]
fn an_error_in_the_middle_is_the_answer() {
    for question in &QUESTIONS {
        let (answer, _) = with_first(
            question,
            |answers| {
                let Answer::Datagram(first) = &answers[0] else { panic!("a datagram") };
                let mut refusal = first[..16].to_vec();
                refusal[..4].copy_from_slice(&20u32.to_ne_bytes());
                refusal[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
                refusal[6..8].fill(0);
                refusal.extend((-libc::EPERM).to_ne_bytes());
                answers.insert(1, Answer::Datagram(refusal));
            },
            false,
        );
        let several = kept(question).0[0].len() > 1;
        if several {
            let errno = answer.err().and_then(|error| error.errno());
            assert_eq!(errno, Some(Errno::EPERM), "{}", question.name);
        }
    }
}

#[test]
fn no_answer_is_too_strange() {
    let kept: Vec<Conversation> = QUESTIONS.iter().map(kept).collect();
    bolero::check!().with_type::<(u8, Vec<Damage>)>().for_each(|(which, damages)| {
        let number = usize::from(*which) % QUESTIONS.len();
        let mut conversation = kept[number].clone();
        damages.iter().for_each(|damage| damage.apply(&mut conversation));
        let _ = played(&QUESTIONS[number], &conversation);
    });
}

#[test]
fn no_bytes_are_too_strange() {
    bolero::check!().for_each(|bytes: &[u8]| {
        for question in &QUESTIONS {
            let answers = vec![Answer::Datagram(bytes.to_vec())];
            let _ = played(question, &Conversation(vec![answers; 4]));
        }
    });
}
