//! The store against a model that is too simple to be wrong: a map per revision.

mod common;

use std::collections::BTreeMap;

use bytes::Bytes;
use common::*;
use proptest::prelude::*;
use tiphys_store::*;

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    PutIfRevision(u8, u8, bool),
    Delete(u8),
    DeleteRange(u8, u8),
    Both(u8, u8),
    Compact(u8),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..12u8;
    prop_oneof![
        6 => (key(), any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        3 => (key(), any::<u8>(), any::<bool>()).prop_map(|(key, value, right)| Step::PutIfRevision(key, value, right)),
        3 => key().prop_map(Step::Delete),
        1 => (key(), key()).prop_map(|(from, to)| Step::DeleteRange(from, to)),
        2 => (key(), key()).prop_map(|(first, second)| Step::Both(first, second)),
        1 => any::<u8>().prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

fn name(key: u8) -> String {
    format!("key/{key:02}")
}

type State = BTreeMap<String, KeyValue>;

/// Every state that ever was, and what changed when.
struct Model {
    states: BTreeMap<Revision, State>,
    events: Vec<(Revision, String)>,
    compacted: Revision,
}

impl Model {
    fn new() -> Self {
        Model { states: BTreeMap::from([(1, State::new())]), events: Vec::new(), compacted: 0 }
    }

    fn revision(&self) -> Revision {
        *self.states.keys().last().unwrap_or(&1)
    }

    fn state(&self) -> State {
        self.states.values().last().cloned().unwrap_or_default()
    }

    fn change(&mut self, puts: &[(String, String)], deletes: &[String]) {
        let mut state = self.state();
        let revision = self.revision() + 1;
        let mut events = Vec::new();
        for (key, value) in puts {
            let prev = state.get(key);
            let (create_revision, version) = prev.map_or((revision, 1), |prev| (prev.create_revision, prev.version + 1));
            let (key_bytes, value) = (Bytes::from(key.clone()), Bytes::from(value.clone()));
            let kv = KeyValue { key: key_bytes, value, create_revision, mod_revision: revision, version, lease: 0 };
            events.push(show_event(&Event { kind: EventKind::Put, kv: kv.clone(), prev: prev.cloned() }));
            state.insert(key.clone(), kv);
        }
        for key in deletes {
            if let Some(prev) = state.remove(key) {
                events.push(format!("-{key}@{revision}<{}", text(&prev.value)));
            }
        }
        if !events.is_empty() {
            self.states.insert(revision, state);
            self.events.extend(events.into_iter().map(|event| (revision, event)));
        }
    }
}

struct Run {
    dir: tempfile::TempDir,
    engine: Option<std::sync::Arc<Embedded>>,
    model: Model,
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut run = Run { dir, engine: None, model: Model::new() };
        run.open();
        run
    }

    /// Tiny segments and eager snapshots, so that all of that happens in a short run.
    fn open(&mut self) {
        self.engine = None;
        let options = Options { segment_bytes: 150, snapshot_after: 1, ..Options::new(self.dir.path()) };
        self.engine = Some(Embedded::open(options).expect("opens"));
    }

    fn engine(&self) -> &Embedded {
        self.engine.as_ref().expect("open")
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Put(key, value) => {
                let (key, value) = (name(key), value.to_string());
                self.engine().txn(always(vec![put(&key, &value)])).await.expect("writes");
                self.model.change(&[(key, value)], &[]);
            }
            Step::PutIfRevision(key, value, right) => {
                let (key, value) = (name(key), value.to_string());
                let revision = self.model.state().get(&key).map_or(0, |kv| kv.mod_revision) + i64::from(!right);
                let compare = vec![Compare::ModRevision(key.clone().into(), Ordering::Equal, revision)];
                let txn = Txn { compare, success: vec![put(&key, &value)], failure: vec![] };
                assert_eq!(self.engine().txn(txn).await.expect("answers").succeeded, right);
                if right {
                    self.model.change(&[(key, value)], &[]);
                }
            }
            Step::Delete(key) => {
                self.engine().txn(always(vec![delete(&name(key))])).await.expect("writes");
                self.model.change(&[], &[name(key)]);
            }
            Step::DeleteRange(from, to) => {
                let range = KeyRange { start: name(from).into(), end: name(to).into() };
                self.engine().txn(always(vec![Op::Delete(range.clone())])).await.expect("writes");
                let doomed: Vec<_> = self.model.state().into_keys().filter(|key| range.contains(key.as_bytes())).collect();
                self.model.change(&[], &doomed);
            }
            Step::Both(first, second) if first != second => {
                self.engine().txn(always(vec![put(&name(first), "both"), delete(&name(second))])).await.expect("writes");
                self.model.change(&[(name(first), "both".into())], &[name(second)]);
            }
            Step::Both(..) => {}
            Step::Compact(back) => {
                let revision = self.model.revision() - i64::from(back % 8);
                let result = self.engine().compact(revision).await;
                assert_eq!(result.is_ok(), revision > self.model.compacted, "{result:?}");
                self.model.compacted = self.model.compacted.max(revision);
            }
            Step::Reopen => self.open(),
        }
    }

    async fn verify(&self) {
        let engine = self.engine();
        assert_eq!((engine.revision(), engine.compacted_revision()), (self.model.revision(), self.model.compacted));
        for (revision, state) in self.model.states.range(self.model.compacted.max(1)..) {
            let answer = engine.range(RangeRequest::new(everything()).at(*revision)).await.expect("reads");
            assert_eq!(answer.kvs, state.values().cloned().collect::<Vec<_>>(), "at {revision}");
        }
        let expected: Vec<_> =
            self.model.events.iter().filter(|(revision, _)| *revision > self.model.compacted).map(|(_, event)| event.clone()).collect();
        if !expected.is_empty() {
            let mut watch = engine.watch(everything(), self.model.compacted + 1).await.expect("watches");
            assert_eq!(events(&mut watch, self.model.revision()).await, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_a_map_with_history(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mut run = Run::new();
            for step in steps {
                run.take(step).await;
            }
            run.verify().await;
            run.open();
            run.verify().await;
        });
    }
}
