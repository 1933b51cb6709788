//! exec, attach and port-forward: the client's streams on one side, the runtime's on the other.

use super::routes::{About, Refused, find, running};
use super::{Response, Server};
use crate::pod::spec;
use bytes::BytesMut;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use std::sync::Arc;
use std::time::Duration;
use tiphys_cri::{self as cri, PortStream, Stdio, Stream};
use tiphys_streaming::portforward::{self, Forward};
use tiphys_streaming::remotecommand::{self, Outcome, Session, Wanted};
use tiphys_streaming::{Input, Output, Refusal, query};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// How long output may still come after the process has ended (others may hold its descriptors).
const DRAIN: Duration = Duration::from_secs(10);

fn boxed(response: http::Response<Full<Bytes>>) -> Response {
    response.map(|body| body.boxed())
}

fn refused(refusal: Refusal) -> Response {
    boxed(refusal)
}

pub(crate) async fn exec(server: &Arc<Server>, request: Request<Incoming>, about: &About<'_>) -> Result<Response, Refused> {
    let container_id = running(&find(server, about.namespace, about.pod)?, about.container)?;
    let wanted = match Wanted::from_query(about.pairs) {
        Ok(wanted) => wanted,
        Err(refusal) => return Ok(refused(*refusal)),
    };
    let cmd: Vec<String> = query::all(about.pairs, "command").into_iter().map(str::to_owned).collect();
    if cmd.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "you must specify at least 1 command".into()));
    }
    let ask = cri::ExecRequest { container_id, cmd, tty: wanted.tty, stdin: wanted.stdin, stdout: wanted.stdout, stderr: wanted.stderr };
    let runtime = server.agent.runtime.clone();
    Ok(remote(server, request, wanted, true, async move { runtime.exec(ask).await }))
}

pub(crate) async fn attach(server: &Arc<Server>, request: Request<Incoming>, about: &About<'_>) -> Result<Response, Refused> {
    let shown = find(server, about.namespace, about.pod)?;
    let container_id = running(&shown, about.container)?;
    let mut wanted = match Wanted::from_query(about.pairs) {
        Ok(wanted) => wanted,
        Err(refusal) => return Ok(refused(*refusal)),
    };
    // The container's own terminal counts, whatever was asked for.
    let tty = spec::container(&shown.pod, about.container).is_some_and(|c| c.tty == Some(true));
    wanted.stderr &= !tty;
    let ask = cri::AttachRequest { container_id, stdin: wanted.stdin, tty, stdout: wanted.stdout, stderr: wanted.stderr };
    let runtime = server.agent.runtime.clone();
    Ok(remote(server, request, wanted, false, async move { runtime.attach(ask).await }))
}

/// Upgrades the connection and joins it with what `open` gives, at the same time.
fn remote(
    server: &Server,
    mut request: Request<Incoming>,
    wanted: Wanted,
    tell_exit: bool,
    open: impl Future<Output = cri::Result<Stream>> + Send + 'static,
) -> Response {
    let upgrade = match remotecommand::serve(&mut request, wanted) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refused(*refusal),
    };
    server.agent.tasks.spawn("remote-command", async move {
        let (session, stream) = tokio::join!(upgrade.session, open);
        match session {
            Ok(session) => join(session, stream, tell_exit).await,
            Err(error) => tracing::debug!(%error, "no session"),
        }
    });
    boxed(upgrade.response)
}

/// Copies until the process has ended or the client is gone.
async fn join(mut session: Session, stream: cri::Result<Stream>, tell_exit: bool) {
    let stdio = match stream {
        Ok(Stream::Direct(stdio)) => stdio,
        Ok(Stream::Url(_)) => return session.finish(Outcome::Failed("the runtime's streaming URLs are not supported".into())).await,
        Err(error) => return session.finish(Outcome::Failed(format!("error executing command in container: {error}"))).await,
    };
    let Stdio { stdin, stdout, stderr, resize, exit } = stdio;
    let feeding = session.stdin.take().zip(stdin).map(|(from, to)| tokio::spawn(feed(from, to)));
    if let Some(to) = resize {
        let mut sizes = std::mem::replace(&mut session.resize, tokio::sync::mpsc::channel(1).1);
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                if to.send(cri::TerminalSize { width: size.width, height: size.height }).is_err() {
                    return;
                }
            }
        });
    }
    let out = tokio::spawn(pump(stdout, session.stdout.take()));
    let err = tokio::spawn(pump(stderr, session.stderr.take()));
    let mut gone = session.gone.clone();
    let code = tokio::select! {
        code = exit => Some(code),
        _ = gone.wait_for(|gone| *gone) => None,
    };
    if let Some(feeding) = feeding {
        feeding.abort();
    }
    let Some(code) = code else {
        out.abort();
        err.abort();
        return;
    };
    let drained = tokio::time::timeout(DRAIN, async { (out.await, err.await) }).await;
    if let Ok((out, err)) = drained {
        session.stdout = out.ok().flatten();
        session.stderr = err.ok().flatten();
    }
    let outcome = match code {
        Ok(code) => Outcome::Exited(if tell_exit { code } else { 0 }),
        Err(error) => Outcome::Failed(format!("error executing command in container: {error}")),
    };
    session.finish(outcome).await;
}

async fn feed(mut from: Input, mut to: cri::BoxWrite) {
    while let Some(chunk) = from.read().await {
        if to.write_all(&chunk).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

/// Gives the output back, so that it is closed together with the session.
async fn pump<R: AsyncRead + Unpin>(from: Option<R>, to: Option<Output>) -> Option<Output> {
    let (mut from, mut to) = (from?, to?);
    copy_out(&mut from, &mut to).await;
    Some(to)
}

async fn copy_out<R: AsyncRead + Unpin>(from: &mut R, to: &mut Output) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(32 * 1024);
        match from.read_buf(&mut buffer).await {
            Ok(1..) => {
                if to.write(buffer.split().freeze()).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

pub(crate) async fn port_forward(server: &Arc<Server>, mut request: Request<Incoming>, about: &About<'_>) -> Result<Response, Refused> {
    let shown = find(server, about.namespace, about.pod)?;
    let sandbox = shown.view.ready_sandbox().map(|s| s.id.clone());
    let sandbox = sandbox.ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod not found ({:?})", about.pod)))?;
    let upgrade = match portforward::serve(&mut request, about.pairs) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return Ok(refused(*refusal)),
    };
    let (agent, uid) = (server.agent.clone(), spec::uid(&shown.pod).to_owned());
    server.agent.tasks.spawn("port-forward", async move {
        let mut session = match upgrade.session.await {
            Ok(session) => session,
            Err(error) => return tracing::debug!(%error, "no port-forward session"),
        };
        let mut forwards = tokio::task::JoinSet::new();
        while let Some(forward) = session.next().await {
            let (runtime, sandbox, uid) = (agent.runtime.clone(), sandbox.clone(), uid.clone());
            forwards.spawn(async move {
                let port = forward.port;
                match runtime.port_forward(&sandbox, port).await {
                    Ok(PortStream::Direct(io)) => forward_one(forward, io).await,
                    Ok(PortStream::Url(_)) => forward.finish(Err("the runtime's streaming URLs are not supported".into())).await,
                    Err(error) => forward.finish(Err(format!("error forwarding port {port} to pod {sandbox}, uid {uid}: {error}"))).await,
                }
            });
            while forwards.try_join_next().is_some() {}
        }
        let mut gone = session.gone.clone();
        tokio::select! {
            () = async { while forwards.join_next().await.is_some() {} } => {}
            _ = gone.wait_for(|gone| *gone) => {}
        }
    });
    Ok(boxed(upgrade.response))
}

async fn forward_one(mut forward: Forward, io: impl AsyncRead + AsyncWrite + Unpin) {
    let (mut read, mut write) = tokio::io::split(io);
    let to_pod = async {
        while let Some(chunk) = forward.from_client.read().await {
            if write.write_all(&chunk).await.is_err() || write.flush().await.is_err() {
                return;
            }
        }
        let _ = write.shutdown().await;
        // The client says no more; the pod may still answer.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = to_pod => {}
        () = copy_out(&mut read, &mut forward.to_client) => {}
    }
    forward.finish(Ok(())).await;
}
