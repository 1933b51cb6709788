//! Asks the runtime what it holds of a pod, and reads the last words of containers that have ended.

use super::view::{Run, State, View};
use crate::{logs, names};
use std::collections::HashMap;
use std::path::Path;
use tiphys_cri as cri;

/// Last words by container id: they are read once.
pub(crate) type Messages = HashMap<String, String>;

const MAX_MESSAGE: usize = 4096;
const MAX_FROM_LOGS: usize = 2048;
const MAX_LINES: usize = 80;

pub(crate) async fn view(runtime: &dyn cri::RuntimeService, uid: &str, messages: &mut Messages, log_folder: &Path) -> cri::Result<View> {
    let label = cri::Map::from([(names::POD_UID.into(), uid.to_owned())]);
    let sandbox_filter = cri::PodSandboxFilter { label_selector: label.clone(), ..Default::default() };
    let filter = cri::ContainerFilter { label_selector: label, ..Default::default() };
    let mut sandboxes = Vec::new();
    for sandbox in runtime.list_pod_sandboxes(&sandbox_filter).await? {
        sandboxes.extend(gone_is_none(runtime.pod_sandbox_status(&sandbox.id).await)?);
    }
    let mut runs = Vec::new();
    for container in runtime.list_containers(&filter).await? {
        if let Some(status) = gone_is_none(runtime.container_status(&container.id).await)? {
            runs.push(Run::from_status(status));
        }
    }
    for run in runs.iter_mut().filter(|r| r.state == State::Exited) {
        let words = messages.entry(run.id.clone()).or_insert_with(|| last_words(run, log_folder));
        if !words.is_empty() {
            run.message.clone_from(words);
        }
    }
    messages.retain(|id, _| runs.iter().any(|r| r.id == *id));
    Ok(View::new(sandboxes, runs))
}

fn gone_is_none<T>(result: cri::Result<T>) -> cri::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The termination message file, or the end of the log where the container's policy asks for that and it failed.
fn last_words(run: &Run, log_folder: &Path) -> String {
    let note = |key: &str| run.annotations.get(key).map(String::as_str).unwrap_or_default();
    let path = note(names::MESSAGE_PATH);
    let file = run.mounts.iter().find(|m| !path.is_empty() && m.container_path == path).map(|m| m.host_path.as_str());
    let text = file.and_then(|f| read_start(Path::new(f))).unwrap_or_default();
    if !text.is_empty()
        || note(names::MESSAGE_POLICY) != "FallbackToLogsOnError"
        || (run.exit_code == 0 && run.reason != "ContainerCannotRun")
    {
        return text;
    }
    let log = log_folder.join(&run.name).join(format!("{}.log", run.restart_count));
    logs::tail_text(&log, MAX_LINES, MAX_FROM_LOGS)
}

fn read_start(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_MESSAGE as u64).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
