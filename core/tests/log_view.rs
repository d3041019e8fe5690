//! The key-value view and the chains: whatever the order in which commits come, the state is the same, and it is that of the
//! reference model.
#![expect(clippy::unwrap_used, reason = "the whole file is a test")]

mod log_model;

use bytes::Bytes;
use log_model::Model;
use proptest::prelude::*;
use vine_core::log::view::Reservation;
use vine_core::log::{Accept, Chains, Commit, CommitHash, Draft, Genesis, Hlc, KV_HORIZON, Op, Ops, Refusal, View};
use vine_core::{Identity, NetworkId};

const AUTHORS: u8 = 3;
const LIMIT: usize = 1 << 24;

/// Few keys, some of them a prefix of another one.
fn any_key() -> impl Strategy<Value = Bytes> {
    const KEYS: &[&[u8]] = &[b"a", b"a/1", b"a/2", b"ab", b"b", b"\xff", b"\xff\xff"];
    prop::sample::select(KEYS).prop_map(Bytes::from_static)
}

/// Few stamps, so that they are often equal, and those around the horizon.
fn any_stamp() -> impl Strategy<Value = Hlc> {
    prop_oneof![
        6 => (1u64..5).prop_map(Hlc),
        1 => (KV_HORIZON.0 - 2..KV_HORIZON.0 + 2).prop_map(Hlc),
        1 => any::<u64>().prop_map(Hlc),
    ]
}

fn any_value() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..4).prop_map(Bytes::from)
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (any_stamp(), any_key(), any_value()).prop_map(|(stamp, key, value)| Op::Put { stamp, key, value }),
        3 => (any_stamp(), any_key()).prop_map(|(stamp, key)| Op::Delete { stamp, key }),
        1 => any_value().prop_map(Op::Plain),
        // Void: shorter than a stamp, and a put without a key.
        1 => (0u8..9, any_value()).prop_map(|(kind, data)| Op::Other { kind, data }),
        1 => any::<[u8; 8]>().prop_map(|stamp| Op::Other { kind: 1, data: [&stamp[..], &[0]].concat().into() }),
    ]
}

/// Of each author the logs, and of each log the ops of its commits. A log follows the one before it.
fn any_history() -> impl Strategy<Value = Vec<Vec<Vec<Vec<Op>>>>> {
    let commit = prop::collection::vec(any_op(), 1..5);
    let log = prop::collection::vec(commit, 1..4);
    prop::collection::vec(prop::collection::vec(log, 0..3), usize::from(AUTHORS))
}

fn network() -> NetworkId {
    NetworkId::new("example").unwrap()
}

fn author(n: usize) -> Identity {
    Identity::from_seed([n as u8; 32])
}

/// Everything that was written, log by log.
fn written(history: &[Vec<Vec<Vec<Op>>>]) -> (Vec<Genesis>, Vec<Commit>) {
    let (mut geneses, mut commits) = (Vec::new(), Vec::new());
    for (n, logs) in history.iter().enumerate() {
        let mut predecessor = None;
        for (nonce, log) in (0..).zip(logs) {
            let author = author(n);
            let genesis = Genesis { network_id: network(), peer_id: author.peer_id(), nonce: [nonce; 16], predecessor };
            let (mut next, mut head) = (0, genesis.log_id().into());
            for ops in log {
                let ops = Ops::new(ops).unwrap().unwrap();
                let commit = Draft::new(genesis.log_id(), next, head, Hlc(1), ops).sign(&author);
                (next, head) = (commit.next_seq(), commit.hash());
                predecessor = Some(commit.tip());
                commits.push(commit);
            }
            geneses.push(genesis);
        }
    }
    (geneses, commits)
}

fn view_of<'a>(commits: impl IntoIterator<Item = &'a Commit>) -> View {
    let mut view = View::new(LIMIT);
    for commit in commits {
        view.apply(commit).unwrap();
    }
    view
}

/// The chains and the view of a node to which these things come in this order, as often as it takes.
fn node(geneses: &[Genesis], commits: &[&Commit]) -> (Chains, View) {
    let members = (0..usize::from(AUTHORS)).map(|n| author(n).peer_id()).collect();
    let (mut chains, mut view) = (Chains::new(network(), members), View::new(LIMIT));
    for genesis in geneses {
        assert_eq!(chains.accept_genesis(genesis), Ok(Accept::New));
    }
    for _ in commits {
        for commit in commits {
            match chains.accept(commit) {
                Ok(Accept::New) => _ = view.apply(commit).unwrap(),
                Ok(Accept::Known) | Err(Refusal::Gap { .. } | Refusal::PredecessorMissing { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    (chains, view)
}

fn assert_like_model(view: &View, model: &Model, prefix: &[u8], after: Option<&[u8]>, limit: usize) {
    let found = view.scan(prefix, after, limit).map(|(key, value)| (key.to_vec(), value.to_vec()));
    assert_eq!(found.collect::<Vec<_>>(), model.scan(prefix, after, limit));
    for (key, value) in model.scan(b"", None, usize::MAX) {
        assert_eq!(view.get(&key).map(|value| value.to_vec()), Some(value));
        assert_eq!(view.seen(&key), model.seen(&key));
    }
    let bytes: usize = view.scan(b"", None, usize::MAX).map(|(key, value)| key.len() + value.len()).sum();
    assert!(view.bytes() >= bytes && view.len() >= model.scan(b"", None, usize::MAX).len());
}

fn shuffled() -> impl Strategy<Value = (Vec<Genesis>, Vec<Commit>, Vec<usize>)> {
    any_history().prop_map(|history| written(&history)).prop_flat_map(|(geneses, commits)| {
        let order: Vec<usize> = (0..commits.len()).collect();
        (Just(geneses), Just(commits), Just(order).prop_shuffle())
    })
}

proptest! {
    /// An author's own order is kept or not: the view does not ask for it.
    #[test]
    fn any_order_of_commits_gives_the_view_of_the_model(
        (_, commits, order) in shuffled(),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        (prefix, after, limit) in (any_value(), prop::option::of(any_key()), 0usize..9),
    ) {
        let view = view_of(&commits);
        let mut model = Model::default();
        for commit in &commits {
            model.apply(commit.hash(), &commit.ops().collect::<Vec<_>>());
        }
        assert_like_model(&view, &model, &prefix, after.as_deref(), limit);
        assert_like_model(&view, &model, b"a", after.as_deref(), limit);

        let mut order: Vec<&Commit> = order.iter().map(|at| &commits[*at]).collect();
        for index in again {
            if !commits.is_empty() {
                order.push(index.get(&commits));
            }
        }
        let other = view_of(order);
        prop_assert_eq!(other.digest(), view.digest());
        prop_assert_eq!(other.bytes(), view.bytes());
        assert_like_model(&other, &model, &prefix, after.as_deref(), limit);
    }

    /// What does not continue its log yet is refused and comes again; in the end all nodes hold the same.
    #[test]
    fn any_order_of_arrival_gives_the_same_state((geneses, commits, order) in shuffled()) {
        let in_order: Vec<&Commit> = commits.iter().collect();
        let (chains, view) = node(&geneses, &in_order);
        let order: Vec<&Commit> = order.iter().map(|at| &commits[*at]).collect();
        let (other_chains, other_view) = node(&geneses, &order);
        prop_assert_eq!(view.digest(), other_view.digest());
        prop_assert_eq!(chains.state_hash(&view.digest()), other_chains.state_hash(&other_view.digest()));
        let last = commits.iter().all(|commit| chains.tip(&commit.header().log).unwrap().next >= commit.next_seq());
        prop_assert!(last, "everything was taken");
    }

    /// Local writes that are applied or fail in any order, beside those of others: the stamps and the state are the model's.
    #[test]
    fn local_writes_are_those_of_the_model(steps in prop::collection::vec(any_step(), 0..60)) {
        let mut node = Local { view: View::new(LIMIT), model: Model::default(), pending: Vec::new(), commits: 0 };
        steps.into_iter().for_each(|step| node.step(step));
        assert_like_model(&node.view, &node.model, b"", None, 99);
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A local put, or a delete without a value, at a reading of the clock.
    Begin { key: Bytes, value: Option<Bytes>, clock: Hlc },
    /// One of the local writes on their way is applied or fails.
    End { which: prop::sample::Index, fails: bool },
    /// A commit of somebody else.
    Foreign(Vec<Op>),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any_key(), prop::option::of(any_value()), any_stamp())
            .prop_map(|(key, value, clock)| Step::Begin { key, value, clock }),
        3 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, fails)| Step::End { which, fails }),
        1 => prop::collection::vec(any_op(), 1..3).prop_map(Step::Foreign),
    ]
}

struct Local {
    view: View,
    model: Model,
    pending: Vec<(Reservation, Option<Bytes>)>,
    commits: u64,
}

impl Local {
    fn step(&mut self, step: Step) {
        match step {
            Step::Begin { key, value, clock } => {
                let reserved = self.view.reserve(&key, value.as_ref().map(Bytes::len), clock);
                assert_eq!(reserved.as_ref().ok().map(Reservation::stamp), self.model.begin(&key, clock));
                self.pending.extend(reserved.ok().map(|reserved| (reserved, value)));
            }
            Step::End { which, fails } => {
                if self.pending.is_empty() {
                    return;
                }
                let (reserved, value) = self.pending.remove(which.index(self.pending.len()));
                let (stamp, key) = (reserved.stamp(), reserved.key().clone());
                if !fails {
                    self.apply(vec![match value {
                        Some(value) => Op::Put { stamp, key: key.clone(), value },
                        None => Op::Delete { stamp, key: key.clone() },
                    }]);
                }
                self.view.release(reserved);
                self.model.end(&key, stamp);
            }
            Step::Foreign(ops) => self.apply(ops),
        }
    }

    fn apply(&mut self, ops: Vec<Op>) {
        self.commits += 1;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.commits.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        self.model.apply(CommitHash(hash), &ops);
        self.view.apply_ops(CommitHash(hash), ops.into_iter()).unwrap();
    }
}
