//! Which of a port's endpoints a node uses: ready ones before those that still serve while they end (KEP-1669), and among the ready ones those
//! that hints prefer for this node or zone (KEP-2433, KEP-3015), if every ready one has a hint and one of them is for here.

use std::collections::BTreeSet;

use crate::services::Endpoint;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) endpoint: Endpoint,
    /// Or serving while it ends.
    pub(crate) ready: bool,
    pub(crate) node: String,
    /// Hints: whom it is for.
    pub(crate) zones: Vec<String>,
    pub(crate) nodes: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Here<'a> {
    pub(crate) node: &'a str,
    pub(crate) zone: &'a str,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Picked {
    pub(crate) cluster: BTreeSet<Endpoint>,
    pub(crate) local: BTreeSet<Endpoint>,
    pub(crate) anywhere: bool,
}

pub(crate) fn pick(all: &[Candidate], here: Here<'_>) -> Picked {
    let ready: Vec<&Candidate> = all.iter().filter(|c| c.ready).collect();
    let usable: Vec<&Candidate> = if ready.is_empty() { all.iter().collect() } else { ready.clone() };
    let at_home = |c: &&Candidate| c.node == here.node;
    let mut local: Vec<&Candidate> = ready.iter().copied().filter(at_home).collect();
    if local.is_empty() {
        local = all.iter().filter(at_home).collect();
    }
    let cluster = if ready.is_empty() { usable } else { preferred(&ready, here) };
    Picked { cluster: set(&cluster), local: set(&local), anywhere: !all.is_empty() }
}

fn set(candidates: &[&Candidate]) -> BTreeSet<Endpoint> {
    candidates.iter().map(|c| c.endpoint).collect()
}

fn preferred<'a>(ready: &[&'a Candidate], here: Here<'_>) -> Vec<&'a Candidate> {
    let by = |hints: fn(&Candidate) -> &[String], me: &str| {
        let all_hinted = ready.iter().all(|c| !hints(c).is_empty());
        let mine: Vec<&'a Candidate> = ready.iter().copied().filter(|c| hints(c).iter().any(|h| h == me)).collect();
        (all_hinted && !mine.is_empty()).then_some(mine)
    };
    by(|c| &c.nodes, here.node).or_else(|| by(|c| &c.zones, here.zone)).unwrap_or_else(|| ready.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `address ready node zones nodes`.
    fn candidate(last: u8, ready: bool, node: &str, zones: &str, nodes: &str) -> Candidate {
        let list = |text: &str| text.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect();
        let endpoint = Endpoint { address: [10, 244, 0, last].into(), port: 80 };
        Candidate { endpoint, ready, node: node.into(), zones: list(zones), nodes: list(nodes) }
    }

    fn shown(set: &BTreeSet<Endpoint>) -> Vec<u8> {
        set.iter().map(|e| e.address.octets()[3]).collect()
    }

    #[test]
    fn readiness_then_topology() {
        let here = Here { node: "n1", zone: "a" };
        let plain = |last, ready, node| candidate(last, ready, node, "", "");
        for (name, all, cluster, local) in [
            ("nothing", vec![], vec![], vec![]),
            ("ready before ending", vec![plain(1, true, "n2"), plain(2, false, "n1")], vec![1], vec![2]),
            ("only ending", vec![plain(1, false, "n2"), plain(2, false, "n1")], vec![1, 2], vec![2]),
            ("own zone", vec![candidate(1, true, "n1", "a", ""), candidate(2, true, "n2", "b", "")], vec![1], vec![1]),
            ("a missing hint ends them all", vec![candidate(1, true, "n1", "a", ""), plain(2, true, "n2")], vec![1, 2], vec![1]),
            ("nothing for this zone", vec![candidate(1, true, "n3", "b", ""), candidate(2, true, "n2", "c", "")], vec![1, 2], vec![]),
            ("own node", vec![candidate(1, true, "n1", "a", "n1"), candidate(2, true, "n2", "a", "n2")], vec![1], vec![1]),
            (
                "no node hint for us: the zone",
                vec![candidate(1, true, "n2", "a", "n2"), candidate(2, true, "n3", "b", "n3")],
                vec![1],
                vec![],
            ),
        ] {
            let picked = pick(&all, here);
            assert_eq!((shown(&picked.cluster), shown(&picked.local), picked.anywhere), (cluster, local, !all.is_empty()), "{name}");
        }
    }
}
