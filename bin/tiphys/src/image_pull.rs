//! Images are pulled once for a machine, in the first node's network namespace: further nodes ask for it over a socket in the cluster's
//! folder, one JSON line there and one back, and then find the image in the store that they share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tiphys_base::tasks::Tasks;
use tiphys_cri::{self as cri, AuthConfig, CriError};
use tiphys_image::{ImageError, ImageStore};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::images::{cri_error, pull};

/// Where the first node listens.
pub(crate) fn socket(cluster_dir: &Path) -> PathBuf {
    cluster_dir.join("images.sock")
}

/// Pulls for other nodes as long as the tasks live.
pub(crate) fn serve(path: &Path, store: Arc<ImageStore>, tasks: &Tasks) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // A predecessor's socket; nobody listens there, or the cluster's lock would be held.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(|| format!("cannot protect {}", path.display()))?;
    let all = tasks.clone();
    tasks.spawn("image pulls", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let store = store.clone();
            all.spawn("image pull", async move {
                if let Err(error) = answer(stream, &store).await {
                    tracing::debug!(%error, "a node that asked for an image went away");
                }
            });
        }
    });
    Ok(())
}

async fn answer(stream: UnixStream, store: &Arc<ImageStore>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let question: Value = serde_json::from_str(&line)?;
    let reply = match pull(store, text(&question, "image"), auth(&question).as_ref()).await {
        Ok(reference) => json!({"reference": reference}),
        Err(error) => json!({"kind": kind(&error), "error": error.to_string()}),
    };
    stream.write_all(format!("{reply}\n").as_bytes()).await
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or("")
}

fn auth(question: &Value) -> Option<AuthConfig> {
    let auth = question.get("auth").filter(|a| a.is_object())?;
    let field = |name| text(auth, name).to_owned();
    Some(AuthConfig {
        username: field("username"),
        password: field("password"),
        auth: field("auth"),
        server_address: field("serverAddress"),
        identity_token: field("identityToken"),
        registry_token: field("registryToken"),
    })
}

fn kind(error: &ImageError) -> &'static str {
    match error {
        ImageError::InvalidReference(_) => "InvalidReference",
        ImageError::NotFound(_) => "NotFound",
        ImageError::Unauthorized(_) => "Unauthorized",
        ImageError::Unavailable(_) => "Unavailable",
        ImageError::Corrupt(_) => "Corrupt",
        ImageError::Unsupported(_) => "Unsupported",
        ImageError::Io(_) => "Io",
    }
}

fn error_of(reply: &Value) -> ImageError {
    let said = text(reply, "error").to_owned();
    match text(reply, "kind") {
        "InvalidReference" => ImageError::InvalidReference(said),
        "NotFound" => ImageError::NotFound(said),
        "Unauthorized" => ImageError::Unauthorized(said),
        "Unavailable" => ImageError::Unavailable(said),
        "Unsupported" => ImageError::Unsupported(said),
        "Io" => ImageError::Io(said),
        _ => ImageError::Corrupt(said),
    }
}

/// Has the first node pull an image; gives what containers name it by.
pub(crate) async fn ask(path: &Path, image: &str, auth: Option<&AuthConfig>) -> cri::Result<String> {
    let auth = auth.map(|a| {
        json!({"username": a.username, "password": a.password, "auth": a.auth, "serverAddress": a.server_address,
            "identityToken": a.identity_token, "registryToken": a.registry_token})
    });
    let asked = async {
        let mut stream = BufReader::new(UnixStream::connect(path).await?);
        stream.write_all(format!("{}\n", json!({"image": image, "auth": auth})).as_bytes()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        Ok::<_, std::io::Error>(serde_json::from_str::<Value>(&line)?)
    };
    let reply = asked
        .await
        .map_err(|e| CriError::Unavailable(format!("the first node, which pulls images for this machine, does not answer: {e}")))?;
    match reply.get("reference").and_then(Value::as_str) {
        Some(reference) => Ok(reference.to_owned()),
        None => Err(cri_error(error_of(&reply))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errors_come_through_as_what_they_are() {
        let folder = std::env::temp_dir().join(format!("tiphys-pull-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        let tasks = Tasks::new();
        let store = crate::images::open_store(&folder.join("images"), &["nowhere.test=http://127.0.0.1:1".into()], None).expect("store");
        let path = socket(&folder);
        serve(&path, store, &tasks).expect("listens");
        assert!(matches!(ask(&path, "UPPER:::", None).await, Err(CriError::InvalidArgument(_))));
        assert!(tasks.shut_down(std::time::Duration::from_secs(5)).await);
        assert!(matches!(ask(&path, "x", None).await, Err(CriError::Unavailable(_))));
        std::fs::remove_dir_all(&folder).expect("cleaned up");
    }
}
