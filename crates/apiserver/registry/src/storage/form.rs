//! An object as it is read and selected, in as few bytes as that takes, and the account of what all such forms take together.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::Json;

/// An object as it is read and selected.
pub(crate) struct Form {
    pub(crate) json: Json,
    names: Arc<[&'static str]>,
    /// Names and values of the labels, then the values of the fields, one behind the other.
    text: Box<str>,
    ends: Box<[u32]>,
    /// How many of `ends` belong to labels.
    labels: u32,
}

impl Form {
    pub(super) fn new<'a>(
        json: Json,
        names: Arc<[&'static str]>,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
        fields: &[(&'static str, Cow<'a, str>)],
    ) -> Form {
        let (mut text, mut ends) = (String::new(), Vec::new());
        let mut add = |part: &str| {
            text.push_str(part);
            // Objects are far below 4 GiB.
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
            ends.len()
        };
        let labels = labels.fold(0, |_, (key, value)| {
            add(key);
            add(value)
        });
        for (_, value) in fields {
            add(value);
        }
        Form { json, names, text: text.into(), ends: ends.into(), labels: u32::try_from(labels).unwrap_or(0) }
    }

    /// The same at another revision.
    pub(super) fn at_revision(&self, revision: i64) -> Form {
        let (names, text, ends) = (self.names.clone(), self.text.clone(), self.ends.clone());
        Form { json: self.json.at_revision(revision), names, text, ends, labels: self.labels }
    }

    pub(super) fn exact(self) -> Form {
        Form { json: self.json.exact(), ..self }
    }

    fn part(&self, at: usize) -> Option<&str> {
        let end = *self.ends.get(at)? as usize;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end as usize);
        self.text.get(start..end)
    }

    pub(super) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        (0..self.labels as usize / 2).filter_map(|at| Some((self.part(2 * at)?, self.part(2 * at + 1)?)))
    }

    pub(super) fn field_at(&self, place: usize) -> Option<&str> {
        self.part(self.labels as usize + place)
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.field_at(self.names.iter().position(|n| *n == name)?)
    }

    /// What it takes in memory, about.
    fn size(&self) -> usize {
        size_of::<Form>() + self.json.bytes().len() + self.text.len() + self.ends.len() * size_of::<u32>()
    }
}

/// The names of the fields of one kind, shared by all forms.
#[derive(Default)]
pub(crate) struct FieldNames(OnceLock<Arc<[&'static str]>>);

impl FieldNames {
    pub(super) fn of(&self, fields: &[(&'static str, Cow<'_, str>)]) -> Arc<[&'static str]> {
        let names = || fields.iter().map(|(name, _)| *name);
        let shared = self.0.get_or_init(|| names().collect());
        // Kinds name the same fields for each object; one that did not would have its own list.
        if names().eq(shared.iter().copied()) { shared.clone() } else { names().collect() }
    }
}

/// What the forms of all entries take together. They are kept for readers to come, up to a limit.
pub(crate) struct Forms {
    bytes: AtomicUsize,
    limit: usize,
}

impl Forms {
    pub(crate) fn new(limit: usize) -> Arc<Forms> {
        Arc::new(Forms { bytes: AtomicUsize::new(0), limit })
    }

    pub(super) fn made(&self, form: &Form) {
        self.bytes.fetch_add(form.size(), Ordering::Relaxed);
    }

    pub(super) fn gone(&self, form: &Form) {
        self.bytes.fetch_sub(form.size(), Ordering::Relaxed);
    }

    pub(crate) fn have_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.limit
    }

    /// Enough that it lasts for a while.
    pub(crate) fn have_ample_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.limit / 8 * 7
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_and_fields_are_found_again() {
        let json = Json::write("v1", "Pod", &json!({"metadata": {"name": "a"}}), 7, 0);
        let fields: Vec<(&'static str, Cow<'_, str>)> =
            vec![("spec.nodeName", "n".into()), ("status.phase", "".into()), ("x", "ä\0".into())];
        for labels in [vec![], vec![("app", "web")], vec![("", ""), ("ä", "ö"), ("tier", "")]] {
            let names = FieldNames::default().of(&fields);
            let form = Form::new(json.clone(), names, labels.iter().copied(), &fields).at_revision(9).exact();
            assert_eq!(form.labels().collect::<Vec<_>>(), labels);
            for (at, (name, value)) in fields.iter().enumerate() {
                assert_eq!(form.field(name), Some(&**value));
                assert_eq!(form.field_at(at), Some(&**value));
            }
            assert_eq!((form.field("spec"), form.field_at(3)), (None, None));
        }
    }

    #[test]
    fn names_are_shared_unless_they_differ() {
        let names = FieldNames::default();
        let a = names.of(&[("x", "1".into())]);
        assert!(Arc::ptr_eq(&a, &names.of(&[("x", "2".into())])));
        assert_eq!(&*names.of(&[("y", "2".into())]), ["y"]);
    }
}
