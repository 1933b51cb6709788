//! The table of facts: what upstream's Go types, OpenAPI documents and discovery documents say about every kind, as data.
//!
//! `facts/facts.txt` is written by `cargo xtask facts` and embedded compressed. It is unpacked once, on first use, and everything here
//! borrows from that text: the whole table is under 1 MiB. Indexes over the fields of a type are made when the type is first asked for.
//!
//! Not here: descriptions (they are prose), and defaults, validation and columns, which are code and live in `tiphys-kinds`.

mod load;

use std::sync::{LazyLock, OnceLock};

use tiphys_meta::{Gvk, Gvr};

/// The table. There is one, for the life of the process: [`Facts::builtin`].
pub struct Facts {
    types: Vec<Type>,
    kinds: Vec<Kind>,
    /// Kinds that every group version has (`DeleteOptions`, `WatchEvent` …), kept once, under `v1`.
    universal: Vec<Kind>,
    groups: Vec<GroupFacts>,
    resources: Vec<ResourceFacts>,
    /// Positions in `resources`, sorted by group, version, name.
    by_name: Vec<u16>,
    off: Vec<(&'static str, &'static str)>,
}

/// A kind and the type of its objects.
#[derive(Debug)]
pub struct Kind {
    pub gvk: Gvk,
    pub(crate) ty: TypeId,
}

/// A group with the versions that are served, the preferred one first. The core group is the empty string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupFacts {
    pub name: &'static str,
    pub versions: Vec<&'static str>,
}

/// A resource as discovery describes it.
#[derive(Debug, Clone)]
pub struct ResourceFacts {
    pub gvr: Gvr,
    pub kind: Gvk,
    pub singular: &'static str,
    pub short_names: Vec<&'static str>,
    pub categories: Vec<&'static str>,
    pub namespaced: bool,
    pub verbs: Vec<&'static str>,
    pub subresources: Vec<Subresource>,
    pub storage_version_hash: &'static str,
    /// Whether DELETE of one object answers with the object instead of a `Status`.
    pub delete_returns_object: bool,
}

#[derive(Debug, Clone)]
pub struct Subresource {
    pub name: &'static str,
    pub kind: Gvk,
    pub verbs: Vec<&'static str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TypeId(pub(crate) u16);

/// A Go struct.
#[derive(Debug)]
pub struct Type {
    /// As OpenAPI names it: `io.k8s.api.core.v1.Pod`.
    pub name: &'static str,
    attrs: &'static str,
    fields: Box<[Field]>,
    shape: Shape,
    index: OnceLock<Index>,
}

/// The fields of a type as JSON sees them: those of inlined structs are there as if they were the type's own.
#[derive(Debug)]
pub(crate) struct Index {
    /// Sorted by name.
    by_name: Box<[Flat]>,
    /// By protobuf number; fields without a number are left out.
    pub(crate) wire: Box<[Wired]>,
    /// Positions in `by_name` of the fields that Go always prints.
    pub(crate) always: Box<[u8]>,
}

/// Where a field that travels in protobuf stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wired {
    /// In the type's own `fields`.
    pub(crate) field: u8,
    /// In `by_name`; of an inlined struct, which has no name, nowhere.
    pub(crate) name: u8,
}

/// No type has more fields than this.
pub(crate) const MOST_FIELDS: usize = 64;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Flat {
    pub(crate) field: &'static Field,
    /// The inlined structs on the way, as Go's decoder names them in errors (`VolumeSource.`); mostly empty.
    pub(crate) via: &'static str,
}

#[derive(Debug)]
pub(crate) struct Field {
    /// The JSON name; empty for an inlined struct.
    pub name: &'static str,
    /// The protobuf number; 0 for a field that does not travel in protobuf.
    pub(crate) number: u16,
    flags: u8,
    pub(crate) shape: &'static Shape,
    attrs: &'static str,
}

const POINTER: u8 = 1;
const OMIT_EMPTY: u8 = 2;
const OMIT_ZERO: u8 = 4;
const REQUIRED: u8 = 8;

/// How a value looks on the wire and as JSON.
#[derive(Debug, PartialEq, Eq, Hash, Clone, Copy)]
pub(crate) enum Shape {
    Str,
    Bool,
    I32,
    I64,
    U32,
    U64,
    F64,
    Bytes,
    /// `interface{}`: any JSON, never in protobuf.
    Any,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// `runtime.RawExtension`: any object.
    Raw,
    /// `metav1.FieldsV1`: a set of fields, as JSON.
    FieldsV1,
    /// `apiextensions.JSON`: any JSON.
    Json,
    /// `apiextensions.JSONSchemaPropsOr{Bool,Array,StringArray}`, with the type of the schema.
    OrBool(TypeId),
    OrArray(TypeId),
    OrStrings(TypeId),
    Message(TypeId),
    List(&'static Shape),
    Map(&'static Shape),
    /// A list that is a message of its own in protobuf (`repeated items = 1`), such as `ExtraValue`.
    Items(&'static Shape),
}

impl Facts {
    /// The facts of Kubernetes v1.36, embedded in the program.
    pub fn builtin() -> &'static Facts {
        static BUILTIN: LazyLock<Facts> = LazyLock::new(load::builtin);
        &BUILTIN
    }

    /// All kinds of all group versions, served or not.
    pub fn kinds(&self) -> impl Iterator<Item = &Kind> {
        self.kinds.iter()
    }

    /// The kind, whether its group version is served or not. `DeleteOptions` and the like answer in every group version.
    pub fn kind(&self, gvk: &Gvk) -> Option<&Kind> {
        self.kind_of(&gvk.group, &gvk.version, &gvk.kind)
    }

    pub fn kind_of(&self, group: &str, version: &str, kind: &str) -> Option<&Kind> {
        let key = (group, version, kind);
        match self.kinds.binary_search_by(|k| (&*k.gvk.group, &*k.gvk.version, &*k.gvk.kind).cmp(&key)) {
            Ok(i) => Some(&self.kinds[i]),
            Err(_) => self.universal.iter().find(|k| k.gvk.kind == kind),
        }
    }

    /// Groups in upstream's order of priority, the core group first.
    pub fn groups(&self) -> &[GroupFacts] {
        &self.groups
    }

    /// The resources that are served, in the order of discovery.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceFacts> {
        self.resources.iter().filter(|r| self.serves(&r.gvr))
    }

    pub fn resource(&self, gvr: &Gvr) -> Option<&ResourceFacts> {
        self.resource_of(&gvr.group, &gvr.version, &gvr.resource)
    }

    pub fn resource_of(&self, group: &str, version: &str, resource: &str) -> Option<&ResourceFacts> {
        let key = (group, version, resource);
        let of = |i: &u16| &self.resources[usize::from(*i)];
        let found = self.by_name.binary_search_by(|i| {
            let gvr = &of(i).gvr;
            (&*gvr.group, &*gvr.version, &*gvr.resource).cmp(&key)
        });
        found.ok().map(|i| of(&self.by_name[i])).filter(|r| self.serves(&r.gvr))
    }

    /// The resource whose objects are of this kind.
    pub fn resource_of_kind(&self, gvk: &Gvk) -> Option<&ResourceFacts> {
        self.resources().find(|r| r.kind == *gvk && r.gvr.group == gvk.group && r.gvr.version == gvk.version)
    }

    /// The resources of a group version, in the order of discovery.
    pub fn resources_in(&self, group: &str, version: &str) -> impl Iterator<Item = &ResourceFacts> {
        self.resources().filter(move |r| r.gvr.group == group && r.gvr.version == version)
    }

    fn serves(&self, gvr: &Gvr) -> bool {
        !self.off.iter().any(|(group, version)| gvr.group == *group && gvr.version == *version)
    }

    #[cfg(test)]
    pub(crate) fn types(&'static self) -> &'static [Type] {
        &self.types
    }

    pub(crate) fn type_named(&self, name: &str) -> Option<&Type> {
        self.types.binary_search_by(|t| t.name.cmp(name)).ok().map(|i| &self.types[i])
    }
}

/// What the JSON of a field looks like, for those who reason about types of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldType {
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Time,
    /// Of several types, or of any.
    Dynamic,
    List(Box<FieldType>),
    Map(Box<FieldType>),
    /// Another type with fields, by its OpenAPI name.
    Message(&'static str),
}

impl Facts {
    pub fn has_message(&self, name: &str) -> bool {
        self.type_named(name).is_some()
    }

    /// The type of a field as JSON has it.
    pub fn field_type(&'static self, message: &str, field: &str) -> Option<FieldType> {
        self.type_named(message)?.field(field).map(|f| f.field.shape.field_type())
    }
}

impl TypeId {
    pub(crate) fn get(self) -> &'static Type {
        &Facts::builtin().types[usize::from(self.0)]
    }
}

impl Kind {
    pub(crate) fn ty(&self) -> &'static Type {
        self.ty.get()
    }

    /// The OpenAPI name of the kind's type: `io.k8s.api.core.v1.Pod`.
    pub fn type_name(&self) -> &'static str {
        self.ty().name
    }
}

impl Type {
    pub(crate) fn fields(&'static self) -> &'static [Field] {
        &self.fields
    }

    /// `Shape::Message` of this type.
    pub(crate) fn as_shape(&'static self) -> &'static Shape {
        &self.shape
    }

    pub(crate) fn index(&'static self) -> &'static Index {
        self.index.get_or_init(|| Index::of(self))
    }

    /// The field as JSON sees it.
    pub(crate) fn field(&'static self, name: &str) -> Option<Flat> {
        self.index().position(name).map(|i| self.index().by_name[i])
    }

    /// `Pod`.
    pub(crate) fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// `v1.Pod`, as Go's reflection prints it.
    pub(crate) fn go_name(&self) -> &'static str {
        let mut dots = self.name.rmatch_indices('.').map(|(i, _)| i + 1);
        let _ = dots.next();
        dots.next().map_or(self.name, |i| &self.name[i..])
    }

    pub(crate) fn map_type(&self) -> Option<&'static str> {
        attr(self.attrs, "mt=")
    }

    pub(crate) fn unions(&self) -> Option<&'static str> {
        attr(self.attrs, "un=")
    }
}

impl Index {
    fn of(ty: &'static Type) -> Index {
        let mut flat = Vec::with_capacity(ty.fields.len() + 4);
        flatten(ty, "", &mut flat);
        flat.sort_by_key(|f| f.field.name);
        let place = |name: &str| flat.binary_search_by(|f: &Flat| f.field.name.cmp(name)).map_or(u8::MAX, |at| at as u8);
        let wired = ty.fields.iter().enumerate().filter(|(_, field)| field.number != 0);
        let mut wire: Vec<Wired> = wired.map(|(i, field)| Wired { field: i as u8, name: place(field.name) }).collect();
        wire.sort_by_key(|wired| ty.fields[usize::from(wired.field)].number);
        let always = (0..flat.len() as u8).filter(|i| flat[usize::from(*i)].field.always()).collect();
        Index { by_name: flat.into(), wire: wire.into(), always }
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.by_name.binary_search_by(|f| f.field.name.cmp(name)).ok()
    }

    pub(crate) fn flat(&self) -> &[Flat] {
        &self.by_name
    }

    pub(crate) fn always(&self) -> impl Iterator<Item = &'static Field> {
        self.always.iter().map(|i| self.by_name[usize::from(*i)].field)
    }
}

fn flatten(ty: &'static Type, via: &'static str, into: &mut Vec<Flat>) {
    for field in &ty.fields {
        match (field.inline(), field.shape) {
            (true, Shape::Message(inner)) => {
                let inner = inner.get();
                // `TypeMeta` and other inlined structs: errors name them by their Go field, which is the type's name.
                let via = Box::leak(format!("{via}{}.", inner.short_name()).into_boxed_str());
                flatten(inner, via, into);
            }
            _ => into.push(Flat { field, via }),
        }
    }
}

impl Field {
    pub(crate) fn inline(&self) -> bool {
        self.name.is_empty()
    }

    pub(crate) fn pointer(&self) -> bool {
        self.flags & POINTER != 0
    }

    pub(crate) fn omit_empty(&self) -> bool {
        self.flags & OMIT_EMPTY != 0
    }

    pub(crate) fn omit_zero(&self) -> bool {
        self.flags & OMIT_ZERO != 0
    }

    pub(crate) fn required(&self) -> bool {
        self.flags & REQUIRED != 0
    }

    /// Whether Go prints the field even where it has the zero value: `omitempty` does not apply to structs.
    fn always(&self) -> bool {
        !self.omit_zero() && (!self.omit_empty() || (!self.pointer() && self.shape.is_struct()))
    }

    /// The Go type in errors, where it is not what the shape says (`v1.PullPolicy`).
    pub(crate) fn go_name(&self) -> Option<&'static str> {
        attr(self.attrs, "g=")
    }

    /// `merge`, `replace`, `retainKeys`, or two of them with a comma.
    pub(crate) fn patch_strategy(&self) -> Option<&'static str> {
        attr(self.attrs, "ps=")
    }

    pub(crate) fn merge_key(&self) -> Option<&'static str> {
        attr(self.attrs, "pk=")
    }

    /// `atomic`, `set` or `map`.
    pub(crate) fn list_type(&self) -> Option<&'static str> {
        attr(self.attrs, "lt=")
    }

    pub(crate) fn list_map_keys(&self) -> impl Iterator<Item = &'static str> {
        attr(self.attrs, "lk=").into_iter().flat_map(|keys| keys.split(','))
    }

    pub(crate) fn map_type(&self) -> Option<&'static str> {
        attr(self.attrs, "mt=")
    }

    /// Whether OpenAPI's schema of the field is a reference and nothing else.
    pub(crate) fn bare_reference(&self) -> bool {
        attr_flag(self.attrs, "br")
    }

    /// The default that OpenAPI publishes, as JSON.
    pub(crate) fn default(&self) -> Option<&'static str> {
        attr(self.attrs, "d=")
    }

    /// The default of elements that OpenAPI publishes, as JSON.
    pub(crate) fn element_default(&self) -> Option<&'static str> {
        attr(self.attrs, "ed=")
    }

    pub(crate) fn format(&self) -> Option<&'static str> {
        attr(self.attrs, "fm=")
    }
}

fn attr(attrs: &'static str, key: &str) -> Option<&'static str> {
    attrs.split('\t').find_map(|a| a.strip_prefix(key))
}

fn attr_flag(attrs: &'static str, flag: &str) -> bool {
    attrs.split('\t').any(|a| a == flag)
}

impl Shape {
    fn field_type(&self) -> FieldType {
        match self {
            Shape::Str | Shape::Duration | Shape::Quantity => FieldType::String,
            Shape::Bool => FieldType::Bool,
            Shape::I32 | Shape::I64 | Shape::U32 | Shape::U64 => FieldType::Int,
            Shape::F64 => FieldType::Double,
            Shape::Bytes => FieldType::Bytes,
            Shape::Time | Shape::MicroTime => FieldType::Time,
            Shape::List(of) | Shape::Items(of) => FieldType::List(Box::new(of.field_type())),
            Shape::Map(of) => FieldType::Map(Box::new(of.field_type())),
            Shape::Message(ty) => FieldType::Message(ty.get().name),
            _ => FieldType::Dynamic,
        }
    }

    /// Whether the Go type is a struct, to which `omitempty` does not apply.
    /// Whether repeated values may come packed into one field.
    pub(crate) fn is_packable(&self) -> bool {
        matches!(self, Shape::Bool | Shape::I32 | Shape::I64 | Shape::U32 | Shape::U64)
    }

    fn is_struct(&self) -> bool {
        use Shape::*;
        matches!(
            self,
            Time | MicroTime
                | Duration
                | Quantity
                | IntOrString
                | Raw
                | FieldsV1
                | Json
                | OrBool(_)
                | OrArray(_)
                | OrStrings(_)
                | Message(_)
        )
    }

    /// The Go type as reflection prints it.
    pub(crate) fn go_name(&self) -> String {
        use Shape::*;
        match self {
            Str => "string".into(),
            Bool => "bool".into(),
            I32 => "int32".into(),
            I64 => "int64".into(),
            U32 => "uint32".into(),
            U64 => "uint64".into(),
            F64 => "float64".into(),
            Bytes => "[]uint8".into(),
            Any => "interface {}".into(),
            Time => "v1.Time".into(),
            MicroTime => "v1.MicroTime".into(),
            Duration => "v1.Duration".into(),
            Quantity => "resource.Quantity".into(),
            IntOrString => "intstr.IntOrString".into(),
            Raw => "runtime.RawExtension".into(),
            FieldsV1 => "v1.FieldsV1".into(),
            Json => "v1.JSON".into(),
            OrBool(_) => "v1.JSONSchemaPropsOrBool".into(),
            OrArray(_) => "v1.JSONSchemaPropsOrArray".into(),
            OrStrings(_) => "v1.JSONSchemaPropsOrStringArray".into(),
            Message(ty) => ty.get().go_name().into(),
            List(of) | Items(of) => format!("[]{}", of.go_name()),
            Map(of) => format!("map[string]{}", of.go_name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_room() {
        let most = Facts::builtin().types().iter().map(|ty| ty.index().by_name.len().max(ty.fields.len())).max();
        assert!(most.is_some_and(|most| most <= MOST_FIELDS), "{most:?}");
    }
}
