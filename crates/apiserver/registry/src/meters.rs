//! How long admission, policies and the first states of watches take, under upstream's stable names.

use std::sync::OnceLock;
use std::time::Duration;

use tiphys_base::meters::{Family, Timings, head};
use tiphys_meta::Gvr;

use crate::admission::Operation;

/// Upper bounds in seconds, upstream's.
const ADMISSION: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const POLICY: &[f64] = &[0.000_000_5, 0.001, 0.01, 0.1, 1.0];
const EXPRESSION: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const WATCH_LIST: &[f64] = &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

/// One plugin, or all: by operation, whether it may change the object, and whether it refused it.
pub(crate) struct Steps([OnceLock<Box<Timings>>; 16]);

impl Steps {
    fn new() -> Steps {
        Steps(std::array::from_fn(|_| OnceLock::new()))
    }

    fn observe(&self, operation: Operation, changes: bool, refused: bool, took: Duration) {
        let place = (operation as usize * 2 + usize::from(changes)) * 2 + usize::from(refused);
        self.0[place].get_or_init(|| Box::new(Timings::new(ADMISSION))).observe(took);
    }

    fn write(&self, out: &mut String, name: &str, plugin: &str) {
        for (place, timings) in self.0.iter().enumerate().filter_map(|(i, t)| Some((i, t.get()?))) {
            let operation = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect][place / 4].as_str();
            let kind = if place & 2 == 2 { "admit" } else { "validate" };
            let labels = format!("{plugin}operation={operation:?},rejected=\"{}\",type={kind:?}", place & 1 == 1);
            timings.write(out, name, &labels);
        }
    }
}

pub(crate) struct Meters {
    all_plugins: Steps,
    plugins: Vec<(&'static str, Steps)>,
    pub(crate) compiled: Timings,
    pub(crate) evaluated: Timings,
    policies: Family,
    watch_lists: Family,
}

impl Meters {
    pub(crate) fn new(plugins: Vec<&'static str>) -> Meters {
        Meters {
            all_plugins: Steps::new(),
            plugins: plugins.into_iter().map(|name| (name, Steps::new())).collect(),
            compiled: Timings::new(EXPRESSION),
            evaluated: Timings::new(EXPRESSION),
            policies: Family::new(POLICY),
            watch_lists: Family::new(WATCH_LIST),
        }
    }

    pub(crate) fn plugin(&self, place: usize, operation: Operation, changes: bool, refused: bool, took: Duration) {
        if let Some((_, steps)) = self.plugins.get(place) {
            steps.observe(operation, changes, refused, took);
        }
    }

    pub(crate) fn admission(&self, operation: Operation, changes: bool, refused: bool, took: Duration) {
        self.all_plugins.observe(operation, changes, refused, took);
    }

    /// `action`: `allow`, or what a binding does with a failure.
    pub(crate) fn policy(&self, policy: &str, binding: &str, action: &str, took: Duration) {
        let labels = format!("enforcement_action={action:?},error_type=\"no_error\",policy={policy:?},policy_binding={binding:?}");
        self.policies.observe(labels, took);
    }

    pub(crate) fn watch_list(&self, gvr: &Gvr, scope: &str, took: Duration) {
        let labels = format!("group={:?},resource={:?},scope={scope:?},version={:?}", gvr.group, gvr.resource, gvr.version);
        self.watch_lists.observe(labels, took);
    }

    pub(crate) fn write(&self, out: &mut String) {
        const STEP: &str = "apiserver_admission_step_admission_duration_seconds";
        head(out, STEP, "histogram", "Time that all admission plugins take.");
        self.all_plugins.write(out, STEP, "");
        const PLUGIN: &str = "apiserver_admission_controller_admission_duration_seconds";
        head(out, PLUGIN, "histogram", "Time that an admission plugin takes.");
        self.plugins.iter().for_each(|(name, steps)| steps.write(out, PLUGIN, &format!("name={name:?},")));
        for (name, help, timings) in [
            ("apiserver_cel_compilation_duration_seconds", "Time to compile a policy's expressions.", &self.compiled),
            ("apiserver_cel_evaluation_duration_seconds", "Time to evaluate a policy's expressions.", &self.evaluated),
        ] {
            head(out, name, "histogram", help);
            timings.write(out, name, "");
        }
        const CHECKS: &str = "apiserver_validating_admission_policy_check_total";
        head(out, CHECKS, "counter", "Requests that policies looked at, by what came of it.");
        self.policies.write_counts(out, CHECKS);
        const CHECK_TIME: &str = "apiserver_validating_admission_policy_check_duration_seconds";
        head(out, CHECK_TIME, "histogram", "Time that a policy takes for a request.");
        self.policies.write(out, CHECK_TIME);
        const FIRST: &str = "apiserver_watch_list_duration_seconds";
        head(out, FIRST, "histogram", "Time until a watch has sent the state that it begins with.");
        self.watch_lists.write(out, FIRST);
    }
}
