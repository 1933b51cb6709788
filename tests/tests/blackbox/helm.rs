//! helm 3 and 4 with a chart that brings a definition, objects of it, and hooks: install, upgrade, what is refused, rollback, uninstall.
//! The chart needs no image, so no registry runs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tiphys_tests::{Cluster, in_new_namespace, refused, run, tool};

struct Helm<'a> {
    cluster: &'a Cluster,
    program: &'a str,
}

impl Helm<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(tool(self.program));
        command.args(line.split_whitespace()).env("KUBECONFIG", self.cluster.users_kubeconfig()).env("HOME", self.cluster.folder());
        command
    }

    fn helm(&self, line: &str) -> Result<String> {
        run(&mut self.command(line))
    }

    fn size(&self, widget: &str) -> Result<String> {
        self.cluster.k(&format!("get widget {widget} -o jsonpath={{.spec.size}},{{.spec.color}}"))
    }
}

fn life_of_a_release(helm: &Helm<'_>) -> Result<()> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/widgets");
    let chart = chart.display();
    helm.helm(&format!("install w {chart} --wait"))?;
    ensure!(helm.size("w")? == "1,blue", "a default of the definition: {}", helm.size("w")?);
    ensure!(helm.size("w-before")? == "1,red", "the hook before: {}", helm.size("w-before")?);
    ensure!(!helm.cluster.k("get configmaps")?.contains("w-after"), "the hook after is gone when it has passed");
    helm.helm(&format!("upgrade w {chart} --set size=3"))?;
    ensure!(helm.size("w")? == "3,blue", "after the upgrade: {}", helm.size("w")?);
    let said = refused(&mut helm.command(&format!("upgrade w {chart} --set size=0")))?;
    ensure!(said.contains("spec.size in body should be greater than or equal to 1"), "{said}");
    helm.helm("rollback w 1")?;
    ensure!(helm.size("w")? == "1,blue", "after the rollback: {}", helm.size("w")?);
    let history = helm.helm("history w")?;
    ensure!(history.contains("superseded") && history.contains("failed") && history.contains("deployed"), "{history}");
    ensure!(helm.helm("list")?.contains("widgets-0.1.0"));
    helm.helm("uninstall w")?;
    refused(&mut helm.cluster.kubectl_command(&["get", "widget", "w"]))?;
    helm.cluster.k("delete crd widgets.charts.example.com --timeout=30s")?;
    Ok(())
}

#[test]
fn a_chart_with_definitions_and_hooks() -> Result<()> {
    in_new_namespace(|| {
        let cluster = Cluster::new("helm")?;
        cluster.tiphys(&["up", "--detach", "--wait"])?;
        for program in ["helm", "helm3"] {
            let helm = Helm { cluster: &cluster, program };
            life_of_a_release(&helm).with_context(|| format!("{program}; the cluster's log:\n{}", cluster.log_end()))?;
        }
        Ok(())
    })
}
