//! The same random story on the fake kernel and on the real one: after each line of it both show the
//! same, so that what is explored on the fake is true.

mod fake;
mod real;
mod snapshot;
mod story;

use std::cell::RefCell;
use std::collections::BTreeMap;

use kvmnet_tests::{Tally, amount};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestCaseError, TestRunner};

use fake::Fake;
use real::Real;
use snapshot::Snapshot;
use story::{Line, line};

fn play(story: &[Line], wanted: &BTreeMap<String, String>) -> Result<(), String> {
    let (mut fake, mut real) = (Fake::new(), Real::new(wanted));
    for (number, &line) in story.iter().enumerate() {
        let succeeded = (fake.live(line), real.live(line));
        let (wanted, found) = (fake.snapshot(), real.snapshot());
        if succeeded.0 != succeeded.1 || wanted != found {
            let differ = |one: &Snapshot, other: &Snapshot| -> Vec<String> {
                let differs = |(key, value): &(&String, &String)| other.get(*key) != Some(value);
                one.iter().filter(differs).map(|(key, value)| format!("{key}: {value}")).collect()
            };
            return Err(format!(
                "line {number}, {line:?}: succeeds on the fake: {}, on the kernel: {}\n\
                 the fake: {:#?}\nthe kernel: {:#?}",
                succeeded.0,
                succeeded.1,
                differ(&wanted, &found),
                differ(&found, &wanted)
            ));
        }
    }
    Ok(())
}

#[test]
fn the_fake_is_true() {
    let config = ProptestConfig {
        cases: amount(40, 300),
        max_shrink_iters: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        source_file: Some(file!()),
        ..ProptestConfig::default()
    };
    let mut tally = Tally::new("random stories, on the fake and on the kernel");
    let count = RefCell::new((0, &mut tally));
    let wanted = real::wanted_tables();
    let stories = prop::collection::vec(line(), 1..=12);
    let result = TestRunner::new(config).run(&stories, |story| {
        play(&story, &wanted).map_err(TestCaseError::fail)?;
        let mut count = count.borrow_mut();
        count.0 += story.len();
        count.1.converged();
        Ok(())
    });
    let (lines, _) = count.into_inner();
    if let Err(error) = result {
        tally.leaked(error);
    }
    tally.remark(format!("{lines} lines"));
    tally.finish();
}
