//! Lifecycle hooks: exec, HTTP, sleep (KEP-3960). TCP hooks exist in the API only; upstream refuses them too.

use crate::agent::Agent;
use crate::pod::view::Run;
use crate::probe::http;
use std::time::Duration;
use tiphys_types::api::core::v1::{Container, LifecycleHandler, Pod};
use tiphys_types::pods;

/// The error text may hold the command's output: it goes to statuses, not into events.
pub(crate) async fn run(agent: &Agent, pod: &Pod, container: &Container, run: &Run, hook: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let answer = agent.runtime.exec_sync(&run.id, &command, Duration::ZERO).await;
        let answer =
            answer.map_err(|e| format!("Exec lifecycle hook ({command:?}) for Container {:?} failed - error: {e}", container.name))?;
        if answer.exit_code != 0 {
            let output = String::from_utf8_lossy(&[answer.stdout, answer.stderr].concat()).into_owned();
            let code = answer.exit_code;
            return Err(format!(
                "Exec lifecycle hook ({command:?}) for Container {:?} failed - error: command terminated with exit code {code}, message: {output:?}",
                container.name
            ));
        }
        return Ok(());
    }
    if let Some(get) = &hook.http_get {
        let ip = pod_ip(agent, pod).await;
        let host = get.host.clone().filter(|h| !h.is_empty()).or(ip).ok_or("failed to find networking container: pod has no IP")?;
        let port = pods::container_port(container, &get.port).ok_or_else(|| format!("invalid port number: {:?}", get.port))?;
        let answer = http::get(&http::Target::of_action(get, host, port, "kube-lifecycle/1.36"), Duration::from_secs(30)).await?;
        return if answer.code >= 400 { Err(format!("HTTP lifecycle hook failed with status {}", answer.code)) } else { Ok(()) };
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0) as u64)).await;
        return Ok(());
    }
    Err(format!("invalid handler: {hook:?}"))
}

async fn pod_ip(agent: &Agent, pod: &Pod) -> Option<String> {
    use crate::pod::spec;
    if spec::host_network(pod) {
        return agent.host_ips().into_iter().next();
    }
    let view = crate::pod::observe::view(&*agent.runtime, spec::uid(pod), &mut Default::default(), std::path::Path::new("/nonexistent"))
        .await
        .ok()?;
    view.ips().first().cloned()
}
