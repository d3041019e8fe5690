//! Any order of calls is legal: no input, however odd and at whatever time, panics a node or keeps it from healing.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use vine_tests::sim::{Op, Profile, Script, Setup, any_op};

fn any_setup() -> impl Strategy<Value = Setup> {
    (any::<u64>(), 2u8..=3, any::<bool>(), any::<u16>(), any::<u8>(), any::<u8>())
        .prop_map(|(seed, hosts, keyed, finds, v6, nat)| Setup { hosts, keyed, finds, v6, nat, ..Setup::pair(seed) })
}

/// The same cases on every run, so that a failure is one of the change at hand; `PROPTEST_RNG_SEED` and `PROPTEST_CASES`
/// look further. A failure prints its script, and becomes a file in `tests/replays`.
fn config() -> ProptestConfig {
    let usual = ProptestConfig { max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { 512 };
    let rng_seed = if usual.rng_seed == RngSeed::Random { RngSeed::Fixed(1) } else { usual.rng_seed };
    ProptestConfig { cases, rng_seed, ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_order_of_calls_is_legal(setup in any_setup(), ops in prop::collection::vec(any_op(Profile::Calls), 1..120)) {
        let script = Script { setup, ops };
        if let Err(why) = script.try_run() {
            // As a file this repeats it: VINE_SIM_FILE=path, see tests/sim_seeds.rs.
            return Err(TestCaseError::fail(format!("{why}\n{script}")));
        }
    }

    #[test]
    fn scripts_round_trip_as_text(setup in any_setup(), ops in prop::collection::vec(any_op(Profile::Faults), 0..20)) {
        let script = Script { setup, ops };
        prop_assert_eq!(script.to_string().parse::<Script>(), Ok(script));
    }
}

#[test]
fn what_is_no_script() {
    let parse = |text: &str| text.parse::<Script>().map_err(|error| error.to_string());
    assert_eq!(parse("# nothing\n\n"), Err("an empty script".into()));
    assert_eq!(parse("wait us=1"), Err("a script begins with its world".into()));
    let text = format!("# why\n\n{}\n  wait us=1\n", Setup::pair(7));
    assert_eq!(parse(&text), Ok(Script { setup: Setup::pair(7), ops: vec![Op::Wait { us: 1 }] }));
}
