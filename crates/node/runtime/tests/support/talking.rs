//! Exec, attach, terminals, forwarded ports.

use std::time::{Duration, Instant};

use tiphys_cri::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Fixture, script};

crate::tests![
    exec_sync,
    exec_with_pipes,
    exec_with_terminal,
    attaching,
    attaching_and_leaving,
    attaching_to_a_terminal,
    forwarding,
    loud_containers
];

async fn direct(stream: Result<Stream>) -> Stdio {
    match stream.unwrap() {
        Stream::Direct(stdio) => stdio,
        Stream::Url(_) => panic!("not direct"),
    }
}

async fn read_until(reader: &mut BoxRead, text: &str) -> String {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut buffer = [0; 256];
        let count = reader.read(&mut buffer).await.unwrap();
        assert!(count > 0, "ended without {text:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

async fn exec_sync(test: Fixture) {
    let sandbox = test.sandbox().await;
    let id = test.start(&sandbox, script("sleep 1000")).await;
    let answer = test.exec(&id, "echo out; echo err >&2; exit 5").await;
    assert_eq!((answer.stdout.as_slice(), answer.stderr.as_slice(), answer.exit_code), (b"out\n".as_slice(), b"err\n".as_slice(), 5));
    // A process left in the background does not hold up the answer.
    let start = Instant::now();
    assert_eq!(test.exec(&id, "sleep 1000 & echo done").await.stdout, b"done\n");
    assert!(start.elapsed() < Duration::from_secs(10));
    let big = test.exec(&id, "head -c 3000000 /dev/zero").await;
    assert_eq!(big.stdout.len(), 3_000_000);
    let command = ["sh", "-c", "sleep 54321 & sleep 54321"].map(str::to_owned);
    let error = test.runtime.exec_sync(&id, &command, Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, CriError::DeadlineExceeded(_)), "{error}");
    while String::from_utf8(test.exec(&id, "ps").await.stdout).unwrap().contains("sleep 54321") {}
    let missing = test.runtime.exec_sync(&id, &["nope".to_owned()], Duration::ZERO).await.unwrap_err().to_string();
    assert!(missing.contains("exec: \"nope\": executable file not found in $PATH"), "{missing}");
    let start = Instant::now();
    for _ in 0..20 {
        test.runtime.exec_sync(&id, &["true".to_owned()], Duration::from_secs(5)).await.unwrap();
    }
    println!("exec: {:?} each", start.elapsed() / 20);
    test.runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    assert!(matches!(test.runtime.exec_sync(&id, &command, Duration::ZERO).await, Err(CriError::FailedPrecondition(_))));
}

async fn exec_with_pipes(test: Fixture) {
    let sandbox = test.sandbox().await;
    let id = test.start(&sandbox, script("sleep 1000")).await;
    let cmd = ["sh", "-c", "cat; echo end >&2; exit 6"].map(str::to_owned).to_vec();
    let request = ExecRequest { container_id: id, cmd, stdin: true, stdout: true, stderr: true, tty: false };
    let mut stdio = direct(test.runtime.exec(request).await).await;
    let mut stdin = stdio.stdin.take().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    stdin.shutdown().await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    stdio.stdout.unwrap().read_to_string(&mut out).await.unwrap();
    stdio.stderr.unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str(), stdio.exit.await), ("hello", "end\n", Ok(6)));
}

async fn exec_with_terminal(test: Fixture) {
    let sandbox = test.sandbox().await;
    let id = test.start(&sandbox, script("sleep 1000")).await;
    let request = ExecRequest { container_id: id, cmd: vec!["sh".into()], stdin: true, stdout: true, stderr: false, tty: true };
    let mut stdio = direct(test.runtime.exec(request).await).await;
    let (mut stdin, mut stdout) = (stdio.stdin.take().unwrap(), stdio.stdout.take().unwrap());
    stdio.resize.as_ref().unwrap().send(TerminalSize { width: 101, height: 33 }).unwrap();
    // The size arrives on a path of its own; ask until it has.
    loop {
        stdin.write_all(b"stty size; tty; echo o''k\n").await.unwrap();
        let seen = read_until(&mut stdout, "ok\r\n").await;
        assert!(seen.contains("/dev/pts/0"), "{seen}");
        if seen.contains("33 101") {
            break;
        }
    }
    stdin.write_all(b"exit 3\n").await.unwrap();
    assert_eq!(stdio.exit.await, Ok(3));
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).await.unwrap();
}

async fn attaching(test: Fixture) {
    let sandbox = test.sandbox().await;
    let config =
        ContainerConfig { stdin: true, stdin_once: true, ..script("echo early; while read x; do echo got $x; echo bad >&2; done; exit 2") };
    let id = test.start(&sandbox, config).await;
    let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true, tty: false };
    let mut stdio = direct(test.runtime.attach(request.clone()).await).await;
    let mut watcher = direct(test.runtime.attach(AttachRequest { stdin: false, stderr: false, ..request }).await).await;
    let (mut stdin, mut stdout) = (stdio.stdin.take().unwrap(), stdio.stdout.take().unwrap());
    stdin.write_all(b"one\n").await.unwrap();
    read_until(&mut stdout, "got one\n").await;
    read_until(watcher.stdout.as_mut().unwrap(), "got one\n").await;
    read_until(stdio.stderr.as_mut().unwrap(), "bad\n").await;
    // Its end is the container's end of input, since it asked for one client.
    stdin.shutdown().await.unwrap();
    assert_eq!(stdio.exit.await, Ok(2));
    let mut rest = String::new();
    watcher.stdout.unwrap().read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "");
}

/// A container that is open to many clients goes on when one has said everything (`kubectl run --leave-stdin-open`).
async fn attaching_and_leaving(test: Fixture) {
    let sandbox = test.sandbox().await;
    let config = ContainerConfig { stdin: true, ..script("cat && echo closed") };
    let id = test.start(&sandbox, config).await;
    let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: true, tty: false };
    for word in ["one\n", "two\n"] {
        let mut stdio = direct(test.runtime.attach(request.clone()).await).await;
        let (mut stdin, mut stdout) = (stdio.stdin.take().unwrap(), stdio.stdout.take().unwrap());
        stdin.write_all(word.as_bytes()).await.unwrap();
        read_until(&mut stdout, word).await;
        stdin.shutdown().await.unwrap();
        assert_eq!(stdio.exit.await, Ok(0));
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "", "the visit is over, and the container's input is not");
    }
}

async fn attaching_to_a_terminal(test: Fixture) {
    let sandbox = test.sandbox().await;
    let config = ContainerConfig { stdin: true, tty: true, ..script("echo up; test -t 0 && tty; ls -l /dev/console; exec sh") };
    let id = test.start(&sandbox, config).await;
    let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, stderr: false, tty: true };
    let mut stdio = direct(test.runtime.attach(request).await).await;
    let (mut stdin, mut stdout) = (stdio.stdin.take().unwrap(), stdio.stdout.take().unwrap());
    stdio.resize.as_ref().unwrap().send(TerminalSize { width: 77, height: 11 }).unwrap();
    loop {
        stdin.write_all(b"stty size; echo o''k\n").await.unwrap();
        if read_until(&mut stdout, "ok\r\n").await.contains("11 77") {
            break;
        }
    }
    stdin.write_all(b"exit 8\n").await.unwrap();
    assert_eq!(stdio.exit.await, Ok(8));
    let log = std::fs::read_to_string(test.runtime.container_status(&id).await.unwrap().log_path).unwrap();
    assert!(log.contains("stdout F up\r\n") && log.contains("/dev/pts/0"), "{log}");
}

async fn forwarding(test: Fixture) {
    let sandbox = test.sandbox().await;
    let id = test.start(&sandbox, script("nc -l -p 8099 -e echo from inside")).await;
    while !String::from_utf8(test.exec(&id, "netstat -ltn").await.stdout).unwrap().contains(":8099") {}
    let PortStream::Direct(mut stream) = test.runtime.port_forward(&sandbox, 8099).await.unwrap() else { panic!("not direct") };
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "from inside\n");
    assert!(test.runtime.port_forward(&sandbox, 1).await.is_err());
}

async fn loud_containers(test: Fixture) {
    let sandbox = test.sandbox().await;
    // Of one visitor only: else its end of input would end the visit, and it would see no more.
    let config = ContainerConfig {
        stdin: true,
        stdin_once: true,
        ..script("read go; yes 0123456789012345678901234567890 | head -n 400000; echo end")
    };
    let id = test.start(&sandbox, config).await;
    let request = AttachRequest { container_id: id.clone(), stdin: true, stdout: true, ..AttachRequest::default() };
    let mut stdio = direct(test.runtime.attach(request).await).await;
    stdio.stdin.take().unwrap().write_all(b"go\n").await.unwrap();
    // Nobody reads: the container waits for its listener, the supervisor does not.
    assert_eq!(test.exec(&id, "echo still here").await.stdout, b"still here\n");
    let mut seen = Vec::new();
    stdio.stdout.take().unwrap().read_to_end(&mut seen).await.unwrap();
    assert_eq!(seen.len(), 400_000 * 32 + 4);
    assert_eq!(stdio.exit.await, Ok(0));
    let log = std::fs::read_to_string(test.runtime.container_status(&id).await.unwrap().log_path).unwrap();
    assert_eq!(log.lines().count(), 400_001);
}
