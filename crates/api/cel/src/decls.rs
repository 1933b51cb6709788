//! The functions that expressions may call, with their overloads: the standard library of cel-go v0.26 and what Kubernetes v1.36 adds to it.
//!
//! One line each: `name overload signature`. `m` before the signature: called on its first argument. Names, ids and types are facts that costs
//! and error messages depend on.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::types::Type;

#[derive(Debug)]
pub(crate) struct Overload {
    pub(crate) id: &'static str,
    pub(crate) member: bool,
    pub(crate) args: Vec<Type>,
    pub(crate) result: Type,
}

pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) overloads: Vec<Overload>,
}

/// The function, whatever libraries an environment has.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    static TABLE: LazyLock<HashMap<&'static str, Function>> = LazyLock::new(table);
    TABLE.get(name)
}

fn table() -> HashMap<&'static str, Function> {
    let mut table: HashMap<&'static str, Function> = HashMap::new();
    let mut add = |name: &'static str, id: &'static str, signature: &str| {
        let function = table.entry(name).or_insert_with(|| Function { name, overloads: Vec::new() });
        function.overloads.push(overload(id, signature));
    };
    for line in LINES.lines().filter(|l| !l.trim().is_empty()) {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(id), Some(signature)) = (words.next(), words.next(), words.next()) {
            add(name, id, signature);
        }
    }
    for (name, stem) in [("_<_", "less"), ("_<=_", "less_equals"), ("_>_", "greater"), ("_>=_", "greater_equals")] {
        for (suffix, args) in ORDERED {
            add(name, leak(&format!("{stem}_{suffix}")), &format!("{args}->bool"));
        }
    }
    for t in COMPARABLE {
        add("isSorted", leak(&format!("list_{t}_is_sorted_bool")), &format!("m:list({t})->bool"));
        add("max", leak(&format!("list_{t}_max_{t}")), &format!("m:list({t})->{t}"));
        add("min", leak(&format!("list_{t}_min_{t}")), &format!("m:list({t})->{t}"));
        let name = runtime(t);
        add("sort", leak(&format!("list_{name}_sort")), &format!("m:list({t})->list({t})"));
        add("@sortByAssociatedKeys", leak(&format!("list_{name}_sortByAssociatedKeys")), &format!("m:list(T),list({t})->list(T)"));
    }
    for t in ["int", "uint", "double", "duration"] {
        add("sum", leak(&format!("list_{t}_sum_{t}")), &format!("m:list({t})->{t}"));
    }
    for name in crate::functions::format::NAMES {
        let full = leak(&format!("format.{name}"));
        add(full, full, "->@kubernetes.NamedFormat");
    }
    table
}

/// The table lives as long as the process does, and is made once.
fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn runtime(name: &str) -> &str {
    match name {
        "timestamp" => "google.protobuf.Timestamp",
        "duration" => "google.protobuf.Duration",
        other => other,
    }
}

const COMPARABLE: [&str; 8] = ["int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes"];

const ORDERED: [(&str, &str); 14] = [
    ("bool", "bool,bool"),
    ("int64", "int,int"),
    ("int64_double", "int,double"),
    ("int64_uint64", "int,uint"),
    ("uint64", "uint,uint"),
    ("uint64_double", "uint,double"),
    ("uint64_int64", "uint,int"),
    ("double", "double,double"),
    ("double_int64", "double,int"),
    ("double_uint64", "double,uint"),
    ("string", "string,string"),
    ("bytes", "bytes,bytes"),
    ("timestamp", "timestamp,timestamp"),
    ("duration", "duration,duration"),
];

fn overload(id: &'static str, signature: &str) -> Overload {
    let (member, signature) = match signature.strip_prefix("m:") {
        Some(rest) => (true, rest),
        None => (false, signature),
    };
    let (args, result) = signature.split_once("->").unwrap_or(("", signature));
    Overload { id, member, args: split(args).into_iter().map(read).collect(), result: read(result) }
}

/// At commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    if start < text.len() {
        parts.push(&text[start..]);
    }
    parts
}

fn read(text: &str) -> Type {
    if let Some((outer, inner)) = text.strip_suffix(')').and_then(|t| t.split_once('(')) {
        let inner: Vec<Type> = split(inner).into_iter().map(read).collect();
        return match (outer, &inner[..]) {
            ("list", [e]) => Type::list(e.clone()),
            ("map", [k, v]) => Type::map(k.clone(), v.clone()),
            ("opt", [t]) => Type::optional(t.clone()),
            ("type", [t]) => Type::Type(Some(Arc::new(t.clone()))),
            _ => Type::Error,
        };
    }
    match text {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "dyn" => Type::Dyn,
        _ if text.starts_with('@') => Type::structure(&text[1..]),
        _ if text.starts_with('#') => Type::opaque(&text[1..]),
        _ => text.chars().next().map_or(Type::Error, Type::Param),
    }
}

/// Types that have a name in expressions.
pub(crate) fn named_type(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "google.protobuf.Duration" => Type::Duration,
        "null_type" => Type::Null,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::Type(None),
        "dyn" => Type::Dyn,
        "optional_type" => Type::optional(Type::Dyn),
        "net.IP" | "net.CIDR" => Type::opaque(name),
        _ => return None,
    })
}

const LINES: &str = "
_?_:_ conditional bool,A,A->A
_&&_ logical_and bool,bool->bool
_||_ logical_or bool,bool->bool
!_ logical_not bool->bool
@not_strictly_false not_strictly_false bool->bool
_==_ equals A,A->bool
_!=_ not_equals A,A->bool
_+_ add_bytes bytes,bytes->bytes
_+_ add_double double,double->double
_+_ add_duration_duration duration,duration->duration
_+_ add_duration_timestamp duration,timestamp->timestamp
_+_ add_timestamp_duration timestamp,duration->timestamp
_+_ add_int64 int,int->int
_+_ add_list list(A),list(A)->list(A)
_+_ add_string string,string->string
_+_ add_uint64 uint,uint->uint
_/_ divide_double double,double->double
_/_ divide_int64 int,int->int
_/_ divide_uint64 uint,uint->uint
_%_ modulo_int64 int,int->int
_%_ modulo_uint64 uint,uint->uint
_*_ multiply_double double,double->double
_*_ multiply_int64 int,int->int
_*_ multiply_uint64 uint,uint->uint
-_ negate_double double->double
-_ negate_int64 int->int
_-_ subtract_double double,double->double
_-_ subtract_duration_duration duration,duration->duration
_-_ subtract_int64 int,int->int
_-_ subtract_timestamp_duration timestamp,duration->timestamp
_-_ subtract_timestamp_timestamp timestamp,timestamp->duration
_-_ subtract_uint64 uint,uint->uint
_[_] index_list list(A),int->A
_[_] index_map map(A,B),A->B
_[_] optional_list_index_int opt(list(V)),int->opt(V)
_[_] optional_map_index_value opt(map(K,V)),K->opt(V)
_[?_] list_optindex_optional_int list(V),int->opt(V)
_[?_] optional_list_optindex_optional_int opt(list(V)),int->opt(V)
_[?_] map_optindex_optional_value map(K,V),K->opt(V)
_[?_] optional_map_optindex_optional_value opt(map(K,V)),K->opt(V)
@in in_list A,list(A)->bool
@in in_map A,map(A,B)->bool
size size_bytes bytes->int
size bytes_size m:bytes->int
size size_list list(A)->int
size list_size m:list(A)->int
size size_map map(A,B)->int
size map_size m:map(A,B)->int
size size_string string->int
size string_size m:string->int
type type A->type(A)
bool bool_to_bool bool->bool
bool string_to_bool string->bool
bytes bytes_to_bytes bytes->bytes
bytes string_to_bytes string->bytes
double double_to_double double->double
double int64_to_double int->double
double string_to_double string->double
double uint64_to_double uint->double
duration duration_to_duration duration->duration
duration int64_to_duration int->duration
duration string_to_duration string->duration
dyn to_dyn A->dyn
int int64_to_int64 int->int
int double_to_int64 double->int
int duration_to_int64 duration->int
int string_to_int64 string->int
int timestamp_to_int64 timestamp->int
int uint64_to_int64 uint->int
string string_to_string string->string
string bool_to_string bool->string
string bytes_to_string bytes->string
string double_to_string double->string
string duration_to_string duration->string
string int64_to_string int->string
string timestamp_to_string timestamp->string
string uint64_to_string uint->string
string ip_to_string #net.IP->string
string cidr_to_string #net.CIDR->string
timestamp timestamp_to_timestamp timestamp->timestamp
timestamp int64_to_timestamp int->timestamp
timestamp string_to_timestamp string->timestamp
uint uint64_to_uint64 uint->uint
uint double_to_uint64 double->uint
uint int64_to_uint64 int->uint
uint string_to_uint64 string->uint
contains contains_string m:string,string->bool
endsWith ends_with_string m:string,string->bool
startsWith starts_with_string m:string,string->bool
matches matches string,string->bool
matches matches_string m:string,string->bool
getFullYear timestamp_to_year m:timestamp->int
getFullYear timestamp_to_year_with_tz m:timestamp,string->int
getMonth timestamp_to_month m:timestamp->int
getMonth timestamp_to_month_with_tz m:timestamp,string->int
getDayOfYear timestamp_to_day_of_year m:timestamp->int
getDayOfYear timestamp_to_day_of_year_with_tz m:timestamp,string->int
getDayOfMonth timestamp_to_day_of_month m:timestamp->int
getDayOfMonth timestamp_to_day_of_month_with_tz m:timestamp,string->int
getDate timestamp_to_day_of_month_1_based m:timestamp->int
getDate timestamp_to_day_of_month_1_based_with_tz m:timestamp,string->int
getDayOfWeek timestamp_to_day_of_week m:timestamp->int
getDayOfWeek timestamp_to_day_of_week_with_tz m:timestamp,string->int
getHours timestamp_to_hours m:timestamp->int
getHours timestamp_to_hours_with_tz m:timestamp,string->int
getHours duration_to_hours m:duration->int
getMinutes timestamp_to_minutes m:timestamp->int
getMinutes timestamp_to_minutes_with_tz m:timestamp,string->int
getMinutes duration_to_minutes m:duration->int
getSeconds timestamp_to_seconds m:timestamp->int
getSeconds timestamp_to_seconds_tz m:timestamp,string->int
getSeconds duration_to_seconds m:duration->int
getMilliseconds timestamp_to_milliseconds m:timestamp->int
getMilliseconds timestamp_to_milliseconds_with_tz m:timestamp,string->int
getMilliseconds duration_to_milliseconds m:duration->int
optional.of optional_of V->opt(V)
optional.ofNonZeroValue optional_ofNonZeroValue V->opt(V)
optional.none optional_none ->opt(V)
optional.unwrap optional_unwrap list(opt(V))->list(V)
unwrapOpt optional_unwrapOpt m:list(opt(V))->list(V)
value optional_value m:opt(V)->V
hasValue optional_hasValue m:opt(V)->bool
or optional_or_optional m:opt(V),opt(V)->opt(V)
orValue optional_orValue_value m:opt(V),V->V
last list_last m:list(V)->opt(V)
first list_first m:list(V)->opt(V)
cel.@mapInsert @mapInsert_map_key_value map(K,V),K,V->map(K,V)
cel.@mapInsert @mapInsert_map_map map(K,V),map(K,V)->map(K,V)
charAt string_char_at_int m:string,int->string
indexOf string_index_of_string m:string,string->int
indexOf string_index_of_string_int m:string,string,int->int
indexOf list_a_index_of_int m:list(A),A->int
lastIndexOf string_last_index_of_string m:string,string->int
lastIndexOf string_last_index_of_string_int m:string,string,int->int
lastIndexOf list_a_last_index_of_int m:list(A),A->int
lowerAscii string_lower_ascii m:string->string
upperAscii string_upper_ascii m:string->string
replace string_replace_string_string m:string,string,string->string
replace string_replace_string_string_int m:string,string,string,int->string
split string_split_string m:string,string->list(string)
split string_split_string_int m:string,string,int->list(string)
substring string_substring_int m:string,int->string
substring string_substring_int_int m:string,int,int->string
trim string_trim m:string->string
format string_format m:string,list(dyn)->string
strings.quote strings_quote string->string
join list_join m:list(string)->string
join list_join_string m:list(string),string->string
sets.contains list_sets_contains_list list(T),list(T)->bool
sets.equivalent list_sets_equivalent_list list(T),list(T)->bool
sets.intersects list_sets_intersects_list list(T),list(T)->bool
slice list_slice m:list(T),int,int->list(T)
flatten list_flatten m:list(list(T))->list(T)
flatten list_flatten_int m:list(dyn),int->list(dyn)
lists.range lists_range int->list(int)
reverse list_reverse m:list(T)->list(T)
distinct list_distinct m:list(T)->list(T)
find string_find_string m:string,string->string
findAll string_find_all_string m:string,string->list(string)
findAll string_find_all_string_int m:string,string,int->list(string)
url string_to_url string->@kubernetes.URL
isURL is_url_string string->bool
getScheme url_get_scheme m:@kubernetes.URL->string
getHost url_get_host m:@kubernetes.URL->string
getHostname url_get_hostname m:@kubernetes.URL->string
getPort url_get_port m:@kubernetes.URL->string
getEscapedPath url_get_escaped_path m:@kubernetes.URL->string
getQuery url_get_query m:@kubernetes.URL->map(string,list(string))
quantity string_to_quantity string->@kubernetes.Quantity
isQuantity is_quantity_string string->bool
sign quantity_sign @kubernetes.Quantity->int
isGreaterThan quantity_is_greater_than m:@kubernetes.Quantity,@kubernetes.Quantity->bool
isGreaterThan semver_is_greater_than m:@kubernetes.Semver,@kubernetes.Semver->bool
isLessThan quantity_is_less_than m:@kubernetes.Quantity,@kubernetes.Quantity->bool
isLessThan semver_is_less_than m:@kubernetes.Semver,@kubernetes.Semver->bool
compareTo quantity_compare_to m:@kubernetes.Quantity,@kubernetes.Quantity->int
compareTo semver_compare_to m:@kubernetes.Semver,@kubernetes.Semver->int
asApproximateFloat quantity_get_float m:@kubernetes.Quantity->double
asInteger quantity_get_int m:@kubernetes.Quantity->int
isInteger quantity_is_integer m:@kubernetes.Quantity->bool
add quantity_add m:@kubernetes.Quantity,@kubernetes.Quantity->@kubernetes.Quantity
add quantity_add_int m:@kubernetes.Quantity,int->@kubernetes.Quantity
sub quantity_sub m:@kubernetes.Quantity,@kubernetes.Quantity->@kubernetes.Quantity
sub quantity_sub_int m:@kubernetes.Quantity,int->@kubernetes.Quantity
semver string_to_semver string->@kubernetes.Semver
semver string_bool_to_semver string,bool->@kubernetes.Semver
isSemver is_semver_string string->bool
isSemver is_semver_string_bool string,bool->bool
major semver_major m:@kubernetes.Semver->int
minor semver_minor m:@kubernetes.Semver->int
patch semver_patch m:@kubernetes.Semver->int
ip string_to_ip string->#net.IP
ip cidr_ip m:#net.CIDR->#net.IP
isIP is_ip string->bool
ip.isCanonical ip_is_canonical string->bool
family ip_family m:#net.IP->int
isUnspecified ip_is_unspecified m:#net.IP->bool
isLoopback ip_is_loopback m:#net.IP->bool
isLinkLocalMulticast ip_is_link_local_multicast m:#net.IP->bool
isLinkLocalUnicast ip_is_link_local_unicast m:#net.IP->bool
isGlobalUnicast ip_is_global_unicast m:#net.IP->bool
cidr string_to_cidr string->#net.CIDR
isCIDR is_cidr string->bool
containsIP cidr_contains_ip_string m:#net.CIDR,string->bool
containsIP cidr_contains_ip_ip m:#net.CIDR,#net.IP->bool
containsCIDR cidr_contains_cidr_string m:#net.CIDR,string->bool
containsCIDR cidr_contains_cidr m:#net.CIDR,#net.CIDR->bool
prefixLength cidr_prefix_length m:#net.CIDR->int
masked cidr_masked m:#net.CIDR->#net.CIDR
validate format-validate m:@kubernetes.NamedFormat,string->opt(list(string))
format.named format-named string->opt(@kubernetes.NamedFormat)
jsonpatch.escapeKey string_jsonpatch_escapeKey_string string->string
path authorizer_path m:@kubernetes.authorization.Authorizer,string->@kubernetes.authorization.PathCheck
group authorizer_group m:@kubernetes.authorization.Authorizer,string->@kubernetes.authorization.GroupCheck
serviceAccount authorizer_serviceaccount m:@kubernetes.authorization.Authorizer,string,string->@kubernetes.authorization.Authorizer
resource groupcheck_resource m:@kubernetes.authorization.GroupCheck,string->@kubernetes.authorization.ResourceCheck
subresource resourcecheck_subresource m:@kubernetes.authorization.ResourceCheck,string->@kubernetes.authorization.ResourceCheck
namespace resourcecheck_namespace m:@kubernetes.authorization.ResourceCheck,string->@kubernetes.authorization.ResourceCheck
name resourcecheck_name m:@kubernetes.authorization.ResourceCheck,string->@kubernetes.authorization.ResourceCheck
fieldSelector authorizer_fieldselector m:@kubernetes.authorization.ResourceCheck,string->@kubernetes.authorization.ResourceCheck
labelSelector authorizer_labelselector m:@kubernetes.authorization.ResourceCheck,string->@kubernetes.authorization.ResourceCheck
check pathcheck_check m:@kubernetes.authorization.PathCheck,string->@kubernetes.authorization.Decision
check resourcecheck_check m:@kubernetes.authorization.ResourceCheck,string->@kubernetes.authorization.Decision
errored decision_errored m:@kubernetes.authorization.Decision->bool
error decision_error m:@kubernetes.authorization.Decision->string
allowed decision_allowed m:@kubernetes.authorization.Decision->bool
reason decision_reason m:@kubernetes.authorization.Decision->string
";
