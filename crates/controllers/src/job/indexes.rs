//! Sets of completion indexes as the API writes them: `1,3-5,7`.

use std::collections::BTreeSet;

use tiphys_types::api::core::v1::Pod;

pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";

pub(super) type Indexes = BTreeSet<i32>;

pub(super) fn parse(text: &str, below: i32) -> Indexes {
    let mut all = Indexes::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else { continue };
        all.extend(first..=last.min(below - 1));
    }
    all
}

/// Two neighbours are written `1,2`, three `1-3`.
pub(super) fn format(indexes: &Indexes) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *index => *last = *index,
            _ => runs.push((*index, *index)),
        }
    }
    let text = |(first, last): (i32, i32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    };
    runs.into_iter().map(text).collect::<Vec<_>>().join(",")
}

pub(super) fn of_pod(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(INDEX)?.parse().ok().filter(|n| *n >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_as_text() {
        for text in ["", "0", "0,1", "1,3-5,7", "0-9"] {
            assert_eq!(format(&parse(text, 100)), text);
        }
        assert_eq!(format(&parse("0-9", 4)), "0-3", "completions have shrunk");
    }
}
