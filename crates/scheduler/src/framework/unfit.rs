use std::collections::BTreeMap;

use super::plugin::{Code, Refusal};

/// No node fits; what each one lacks.
#[derive(Debug, Clone, Default)]
pub struct Unfit {
    pub total: usize,
    /// By the node's place in the snapshot.
    pub nodes: Vec<(usize, Refusal)>,
    /// Nodes that PreFilter ruled out: how many, and in whose words.
    pub ruled_out: Option<(usize, Refusal)>,
    /// PreFilter refused the pod itself.
    pub pre_filter: Option<Refusal>,
    pub post_filter: String,
}

impl Unfit {
    /// The plugins whose refusals must be mended.
    pub fn refused_by(&self) -> Vec<&'static str> {
        let all = self.nodes.iter().map(|(_, r)| r).chain(self.pre_filter.iter()).chain(self.ruled_out.iter().map(|(_, r)| r));
        let mut plugins: Vec<&'static str> = all.map(|r| r.plugin).filter(|p| !p.is_empty()).collect();
        plugins.sort_unstable();
        plugins.dedup();
        plugins
    }

    pub fn error(&self) -> Option<&Refusal> {
        self.nodes.iter().map(|(_, r)| r).chain(self.pre_filter.iter()).find(|r| r.code == Code::Error)
    }

    /// Upstream's sentence, word for word.
    pub fn message(&self) -> String {
        let mut text = format!("0/{} nodes are available:", self.total);
        if let Some(refusal) = &self.pre_filter {
            text.push_str(&format!(" {}.", refusal.reasons.join(", ")));
        } else if let Some(counted) = self.histogram() {
            text.push_str(&format!(" {counted}."));
        }
        if !self.post_filter.is_empty() {
            text.push(' ');
            text.push_str(&self.post_filter);
        }
        text
    }

    fn histogram(&self) -> Option<String> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for reason in self.nodes.iter().flat_map(|(_, r)| &r.reasons) {
            *counts.entry(reason).or_default() += 1;
        }
        if let Some((nodes, refusal)) = &self.ruled_out {
            for reason in &refusal.reasons {
                *counts.entry(reason).or_default() += nodes;
            }
        }
        let mut lines: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        lines.sort_unstable();
        (!lines.is_empty()).then(|| lines.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_and_sorted_as_text() {
        let refusal = |reason: &'static str| Refusal::unschedulable("P", reason);
        let mut unfit = Unfit { total: 3, ..Unfit::default() };
        unfit.nodes = vec![(0, refusal("Insufficient cpu")), (1, refusal("Insufficient cpu")), (2, refusal("node(s) were unschedulable"))];
        assert_eq!(unfit.message(), "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.");
        unfit.post_filter = "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.".into();
        assert!(unfit.message().ends_with("cpu. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."));
        unfit.pre_filter = Some(Refusal::unresolvable("V", "persistentvolumeclaim \"x\" not found"));
        unfit.post_filter.clear();
        assert_eq!(unfit.message(), "0/3 nodes are available: persistentvolumeclaim \"x\" not found.");
    }
}
