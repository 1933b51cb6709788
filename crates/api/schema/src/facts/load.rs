//! Reads the table's text. A line that cannot be read is a broken build, not an input of a user: it panics, and the tests find it.

use std::collections::HashMap;
use std::io::Read;
use std::sync::OnceLock;

use tiphys_meta::{Gvk, Gvr};

use super::{Facts, Field, GroupFacts, Kind, OMIT_EMPTY, OMIT_ZERO, POINTER, REQUIRED, ResourceFacts, Shape, Subresource, Type, TypeId};

static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/facts.z"));

pub(super) fn builtin() -> Facts {
    Loader::read(unpack())
}

fn unpack() -> &'static str {
    let (size, packed) = PACKED.split_at(4);
    let mut text = String::with_capacity(size.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b)));
    if let Err(error) = flate2::read::DeflateDecoder::new(packed).read_to_string(&mut text) {
        unreachable!("the embedded facts are whole: {error}");
    }
    Box::leak(text.into_boxed_str())
}

struct Loader {
    facts: Facts,
    ids: HashMap<&'static str, TypeId>,
    shapes: HashMap<&'static str, &'static Shape>,
    /// Group and version whose resources are being read.
    at: (&'static str, &'static str),
    fields: Vec<Field>,
}

impl Loader {
    fn read(text: &'static str) -> Facts {
        let names = text.lines().filter_map(|l| l.strip_prefix("t\t")).map(|l| l.split('\t').next().unwrap_or(l));
        let ids = names.enumerate().map(|(i, name)| (name, TypeId(i as u16))).collect();
        let facts = Facts {
            types: Vec::new(),
            kinds: Vec::new(),
            universal: Vec::new(),
            groups: Vec::new(),
            resources: Vec::new(),
            by_name: Vec::new(),
            off: Vec::new(),
        };
        let mut loader = Loader { facts, ids, shapes: HashMap::new(), at: ("", ""), fields: Vec::new() };
        for line in text.lines() {
            let (what, rest) = line.split_once('\t').unwrap_or((line, ""));
            match what {
                "t" => loader.start_type(rest),
                "f" => loader.field(rest),
                "k" | "u" => loader.kind(what, rest),
                "v" => loader.version(rest),
                "r" => loader.resource(rest),
                "s" => loader.subresource(rest),
                _ => {}
            }
        }
        loader.finish()
    }

    fn start_type(&mut self, rest: &'static str) {
        self.end_type();
        let (name, attrs) = rest.split_once('\t').unwrap_or((rest, ""));
        let shape = Shape::Message(self.ids[name]);
        self.facts.types.push(Type { name, attrs, fields: Box::default(), shape, index: OnceLock::new() });
    }

    fn end_type(&mut self) {
        let fields = std::mem::take(&mut self.fields);
        if let Some(ty) = self.facts.types.last_mut()
            && ty.fields.is_empty()
        {
            ty.fields = fields.into();
        }
    }

    fn field(&mut self, rest: &'static str) {
        let mut parts = rest.splitn(4, '\t');
        let (name, number) = (parts.next().unwrap_or(""), parts.next().unwrap_or("-"));
        let (shape, mut attrs) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let (shape, mut flags) = shape.strip_prefix('*').map_or((shape, 0), |s| (s, POINTER));
        loop {
            let (flag, rest) = attrs.split_once('\t').unwrap_or((attrs, ""));
            match flag {
                "o" => flags |= OMIT_EMPTY,
                "z" => flags |= OMIT_ZERO,
                "r" => flags |= REQUIRED,
                _ => break,
            }
            attrs = rest;
        }
        if attrs.split('\t').any(|a| a == "r") {
            flags |= REQUIRED;
        }
        let shape = self.shape(shape);
        self.fields.push(Field { name, number: number.parse().unwrap_or(0), flags, shape, attrs });
    }

    fn shape(&mut self, text: &'static str) -> &'static Shape {
        if let Some(shape) = self.shapes.get(text) {
            return shape;
        }
        let shape: &'static Shape = Box::leak(Box::new(self.new_shape(text)));
        self.shapes.insert(text, shape);
        shape
    }

    fn new_shape(&mut self, text: &'static str) -> Shape {
        let id = |name: &str| self.ids[name];
        if let Some(name) = text.strip_prefix('@') {
            return Shape::Message(id(name));
        }
        for (mark, make) in [("[]", Shape::List as fn(&'static Shape) -> Shape), ("{}", Shape::Map), ("<>", Shape::Items)] {
            if let Some(of) = text.strip_prefix(mark) {
                return make(self.shape(of));
            }
        }
        if let Some((union, name)) = text.split_once(' ') {
            return match union {
                "orbool" => Shape::OrBool(id(name)),
                "orarray" => Shape::OrArray(id(name)),
                _ => Shape::OrStrings(id(name)),
            };
        }
        match text {
            "str" => Shape::Str,
            "bool" => Shape::Bool,
            "i32" => Shape::I32,
            "i64" => Shape::I64,
            "u32" => Shape::U32,
            "u64" => Shape::U64,
            "f64" => Shape::F64,
            "bytes" => Shape::Bytes,
            "any" => Shape::Any,
            "time" => Shape::Time,
            "microtime" => Shape::MicroTime,
            "duration" => Shape::Duration,
            "quantity" => Shape::Quantity,
            "intstr" => Shape::IntOrString,
            "raw" => Shape::Raw,
            "fields" => Shape::FieldsV1,
            "json" => Shape::Json,
            _ => unreachable!("the generator writes no shape {text}"),
        }
    }

    fn kind(&mut self, what: &str, rest: &'static str) {
        let mut parts = rest.split('\t');
        let (api_version, kind) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let ty = self.ids[parts.next().unwrap_or("")];
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = Kind { gvk: Gvk::new(group, version, kind), ty };
        if what == "u" {
            self.facts.universal.push(Kind { gvk: kind.gvk.clone(), ty });
        }
        self.facts.kinds.push(kind);
    }

    fn version(&mut self, rest: &'static str) {
        let mut parts = rest.split('\t');
        let (group, version) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        self.at = (group, version);
        if parts.next() != Some("on") {
            self.facts.off.push((group, version));
            return;
        }
        match self.facts.groups.last_mut() {
            Some(last) if last.name == group => last.versions.push(version),
            _ => self.facts.groups.push(GroupFacts { name: group, versions: vec![version] }),
        }
    }

    fn resource(&mut self, rest: &'static str) {
        let parts: Vec<&'static str> = rest.split('\t').collect();
        let part = |i: usize| parts.get(i).copied().unwrap_or("");
        self.facts.resources.push(ResourceFacts {
            gvr: Gvr::new(self.at.0, self.at.1, part(0)),
            kind: self.gvk(part(2)),
            singular: part(1),
            short_names: list(part(4)),
            categories: list(part(5)),
            namespaced: part(3) == "namespaced",
            verbs: list(part(6)),
            subresources: Vec::new(),
            storage_version_hash: part(7),
            delete_returns_object: part(8) == "object",
        });
    }

    fn subresource(&mut self, rest: &'static str) {
        let mut parts = rest.split('\t');
        let (name, kind, verbs) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let subresource = Subresource { name, kind: self.gvk(kind), verbs: list(verbs) };
        if let Some(owner) = self.facts.resources.last_mut() {
            owner.subresources.push(subresource);
        }
    }

    /// `Pod`, or `autoscaling/v1/Scale` where it is of another group version than its resource.
    fn gvk(&self, text: &'static str) -> Gvk {
        match text.split('/').collect::<Vec<_>>()[..] {
            [group, version, kind] => Gvk::new(group, version, kind),
            _ => Gvk::new(self.at.0, self.at.1, text),
        }
    }

    fn finish(mut self) -> Facts {
        self.end_type();
        let mut facts = self.facts;
        facts.kinds.sort_by(|a, b| a.gvk.cmp(&b.gvk));
        facts.by_name = (0..facts.resources.len() as u16).collect();
        let resources = &facts.resources;
        facts.by_name.sort_by(|a, b| resources[usize::from(*a)].gvr.cmp(&resources[usize::from(*b)].gvr));
        facts
    }
}

fn list(text: &'static str) -> Vec<&'static str> {
    text.split(',').filter(|t| !t.is_empty()).collect()
}
