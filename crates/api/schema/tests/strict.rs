//! What is wrong with an object, in upstream's words.

use serde_json::{Value, json};
use tiphys_schema::Facts;
use tiphys_schema::codec::{Strictness, json as codec, proto};

fn decode(kind: &str, text: &str) -> Result<(Value, Vec<String>), String> {
    let kind = Facts::builtin().kind_of("", "v1", kind).expect("kind");
    let decoded = codec::decode(kind, text.as_bytes(), Strictness::Strict).map_err(|e| e.to_string())?;
    Ok((decoded.object, decoded.problems))
}

#[test]
fn problems() {
    let text = r#"{"foo":1,"spec":{"containers":[{"name":"a","name":"b","Image":"x"},{"ports":[{"x":{"x":1,"x":2}}]}]},"metadata":{"labels":{"a":"1","a":"2"}}}"#;
    let (_, problems) = decode("Pod", text).unwrap();
    assert_eq!(
        problems,
        [
            r#"unknown field "foo""#,
            r#"duplicate field "spec.containers[0].name""#,
            r#"unknown field "spec.containers[0].Image""#,
            r#"unknown field "spec.containers[1].ports[0].x""#,
            r#"duplicate field "metadata.labels.a""#,
        ]
    );
}

#[test]
fn wrong_types() {
    let cases = [
        (
            r#"{"spec":{"containers":"x"}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}"#,
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            r#"{"spec":{"restartPolicy":1}}"#,
            "json: cannot unmarshal number into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (r#"{"spec":[]}"#, "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec"),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            r#"{"spec":{"activeDeadlineSeconds":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64",
        ),
        (
            r#"{"spec":{"volumes":[{"emptyDir":{"sizeLimit":"1Q"}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#"{"spec":{"volumes":[{"emptyDir":"x"}]}}"#,
            "json: cannot unmarshal string into Go struct field Volume.spec.volumes.VolumeSource.emptyDir of type v1.EmptyDirVolumeSource",
        ),
        (r#"{"metadata":{"creationTimestamp":"x"}}"#, r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#),
        (r#"{"spec":"#, "unexpected end of JSON input"),
        (r#"{"a":x}"#, "invalid character 'x' looking for beginning of value"),
        (r#"{a:1}"#, "invalid character 'a' looking for beginning of object key string"),
        (r#"[]"#, "json: cannot unmarshal array into Go value of type v1.Pod"),
    ];
    for (text, words) in cases {
        assert_eq!(decode("Pod", text).unwrap_err(), words, "{text}");
    }
}

#[test]
fn bytes_as_a_list_of_numbers() {
    let read = |list: &str| decode("Secret", &format!(r#"{{"data":{{"k":{list}}}}}"#)).map(|(object, _)| object["data"]["k"].clone());
    assert_eq!(read("[]").unwrap(), "");
    assert_eq!(read("[1,null,255]").unwrap(), "AQD/");
    let of_type = |found: &str| format!("json: cannot unmarshal {found} into Go struct field Secret.data of type uint8");
    for (list, found) in
        [("[256]", "number 256"), ("[-1]", "number -1"), ("[1.5]", "number 1.5"), (r#"["a"]"#, "string"), ("[[1]]", "array")]
    {
        assert_eq!(read(list).unwrap_err(), of_type(found), "{list}");
    }
}

#[test]
fn canonical_form() {
    let (object, problems) = decode(
        "Pod",
        r#"{"kind":"Pod","metadata":{"name":"a","labels":{},"generation":0,"creationTimestamp":null,"namespace":""},
            "spec":{"containers":[{"name":"c","image":null,"resources":{"limits":{"cpu":"1000m","memory":1073741824}},"env":[]}],
            "hostNetwork":false,"terminationGracePeriodSeconds":0,"volumes":null}}"#,
    )
    .unwrap();
    assert!(problems.is_empty());
    let expected = json!({
        "kind": "Pod", "metadata": {"name": "a"},
        "spec": {
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1073741824"}}}],
            "terminationGracePeriodSeconds": 0
        },
        "status": {}
    });
    assert_eq!(object, expected);
    let (service, _) = decode("Service", "{}").unwrap();
    assert_eq!(service, json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}}));
    let (event, _) = decode("Event", r#"{"involvedObject":{"name":"x"}}"#).unwrap();
    assert_eq!(event["eventTime"], Value::Null);
    assert_eq!(event["firstTimestamp"], Value::Null);
    assert_eq!(event["involvedObject"], json!({"name": "x"}));
    let (secret, _) = decode("Secret", r#"{"data":{"a":"YQ==","b":null}}"#).unwrap();
    assert_eq!(secret["data"], json!({"a": "YQ==", "b": ""}));
}

/// A list or map of nothing comes back from storage as null; bytes do not.
#[test]
fn no_bytes_are_not_none() {
    let kind = Facts::builtin().kind_of("certificates.k8s.io", "v1", "CertificateSigningRequest").expect("kind");
    for (given, kept) in [(r#""""#, json!("")), ("null", Value::Null)] {
        let text = format!(r#"{{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","spec":{{"request":{given}}}}}"#);
        let object = codec::decode(kind, text.as_bytes(), Strictness::Strict).unwrap().object;
        assert_eq!(object["spec"]["request"], kept);
        let stored = proto::encode(&kind.gvk, &object).unwrap();
        assert_eq!(proto::decode(&stored).unwrap().1, object);
    }
}
