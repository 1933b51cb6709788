use super::*;

#[test]
fn sizes_are_found_across_message_borders() {
    let mut buffer = br#"{"Width":80,"Height":24}{"Width":1"#.to_vec();
    assert_eq!(drain_sizes(&mut buffer), [TerminalSize { width: 80, height: 24 }]);
    buffer.extend_from_slice(br#"20,"Height":40}"#);
    assert_eq!(drain_sizes(&mut buffer), [TerminalSize { width: 120, height: 40 }]);
    assert!(buffer.is_empty());
    let mut rubbish = b"]]]".to_vec();
    assert!(drain_sizes(&mut rubbish).is_empty() && rubbish.is_empty());
}

#[test]
fn the_status_is_json_from_v4_on_and_text_before() {
    let json = |outcome| String::from_utf8(status_bytes(&outcome, true).expect("always").to_vec()).expect("text");
    assert_eq!(json(Outcome::Exited(0)), r#"{"metadata":{},"status":"Success"}"#);
    assert!(json(Outcome::Exited(3)).contains(r#""causes":[{"message":"3","reason":"ExitCode"}]"#));
    assert_eq!(status_bytes(&Outcome::Exited(0), false), None);
    let text = status_bytes(&Outcome::Failed("no".into()), false);
    assert_eq!(text.as_deref(), Some(&b"Internal error occurred: no"[..]));
}

#[test]
fn both_query_spellings_ask_for_streams() {
    let wanted = |query| Wanted::from_query(&query::pairs(query)).ok();
    let all = Wanted { stdin: true, stdout: true, stderr: false, tty: true };
    assert_eq!(wanted("input=1&output=1&error=1&tty=1"), Some(all));
    assert_eq!(wanted("stdin=true&stdout=true&stderr=true&tty=true"), Some(all));
    assert_eq!(wanted("command=ls"), None);
}
