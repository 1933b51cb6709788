//! Clients as people have them, in their own languages, against a cluster. Building them takes minutes, so they are asked for:
//! `TIPHYS_CLIENTS=go,python,kube-rs,cert-manager,metrics-server` (or `all`) names them; what they are built of stays under `/var/cache/tiphys/clients`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tiphys_tests::{Cluster, Registry, eventually, in_new_namespace, refused, run};

const CACHE: &str = "/var/cache/tiphys/clients";
const SOON: Duration = Duration::from_secs(60);

fn is_asked_for(client: &str) -> bool {
    let asked = std::env::var("TIPHYS_CLIENTS").unwrap_or_default();
    let here = asked.split(',').any(|name| name == client || name == "all");
    if !here {
        println!("without {client}: TIPHYS_CLIENTS does not name it");
    }
    here
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

fn cache(name: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(CACHE)?;
    Ok(Path::new(CACHE).join(name))
}

/// A Go module of `clients`, built. Go itself sees whether there is anything to do.
fn go(name: &str) -> Result<PathBuf> {
    let built = cache(name)?;
    let mut build = Command::new("go");
    build.args(["build", "-p", "2", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(&built).arg(".");
    run(build.current_dir(source(name)))?;
    Ok(built)
}

/// The program of a published module.
fn go_install(name: &str, module: &str) -> Result<PathBuf> {
    let built = cache(name)?;
    let stamp = built.with_extension("version");
    if !built.exists() || !std::fs::read_to_string(&stamp).is_ok_and(|have| have == module) {
        let mut install = Command::new("go");
        install.args(["install", "-p", "2", "-trimpath", "-ldflags", "-s -w", module]).env("GOBIN", CACHE);
        run(&mut install)?;
        std::fs::write(&stamp, module)?;
    }
    Ok(built)
}

/// A program that runs beside the test, and ends with it.
struct Beside(Child, PathBuf);

impl Beside {
    fn start(command: &mut Command, log: PathBuf) -> Result<Beside> {
        let file = File::create(&log)?;
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn().with_context(|| format!("{command:?}"))?;
        Ok(Beside(child, log))
    }

    fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.1).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the test inside, with a cluster, where the client is asked for.
fn with_cluster(client: &'static str, before: fn() -> Result<PathBuf>, test: fn(&Cluster, &Path) -> Result<()>) -> Result<()> {
    if !is_asked_for(client) {
        return Ok(());
    }
    // Outside: what is built may have to be fetched.
    let program = before()?;
    in_new_namespace(move || {
        let _registry = Registry::start()?;
        let cluster = Cluster::new(client)?;
        cluster.up(&[])?;
        test(&cluster, &program).with_context(|| format!("the cluster's log:\n{}", cluster.log_end()))
    })
}

fn client(cluster: &Cluster, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("KUBECONFIG", cluster.users_kubeconfig()).env("HOME", cluster.folder());
    command
}

#[test]
fn client_go() -> Result<()> {
    with_cluster(
        "go",
        || go("go"),
        |cluster, program| {
            let said = run(client(cluster, program).arg("informers"))?;
            ensure!(said.matches("passed: ").count() == 8, "{said}");
            cluster.apply(SIGNS)?;
            cluster.k("wait --for=condition=Established crd/signs.clients.example.com --timeout=30s")?;
            let operator = Beside::start(client(cluster, program).arg("operator"), cluster.folder().join("operator.log"))?;
            an_operator_works(cluster).with_context(|| format!("the operator's log:\n{}", operator.log_end()))
        },
    )
}

fn an_operator_works(cluster: &Cluster) -> Result<()> {
    let is = |line: &str, want: &str| {
        eventually(SOON, || {
            let said = cluster.k(line)?;
            ensure!(said == want, "kubectl {line}: {said:?}, not {want:?}");
            Ok(())
        })
    };
    cluster.apply(SIGN)?;
    cluster.k("wait --for=condition=Ready sign/hello --timeout=60s")?;
    is("get configmap hello -o jsonpath={.data.text}/{.data.copies}", "Hello/1")?;
    cluster.k("patch sign hello --type=merge -p {\"spec\":{\"text\":\"Bye\"}}")?;
    is("get configmap hello -o jsonpath={.data.text}", "Bye")?;
    is("get sign hello -o jsonpath={.status.shown}/{.status.observedGeneration}", "Bye/2")?;
    cluster.k("delete configmap hello")?;
    is("get configmap hello -o jsonpath={.data.text}", "Bye")?;
    cluster.k("delete sign hello --timeout=30s")?;
    eventually(SOON, || refused(&mut cluster.kubectl_command(&["get", "configmap", "hello"])))?;
    cluster.k("get configmap hello-was-here").map(drop)
}

const SIGNS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: signs.clients.example.com}
spec:
  group: clients.example.com
  scope: Namespaced
  names: {plural: signs, kind: Sign}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [text]
            properties:
              text: {type: string, minLength: 1}
              copies: {type: integer, format: int32, default: 1}
          status:
            type: object
            properties:
              observedGeneration: {type: integer, format: int64}
              shown: {type: string}
              conditions: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [type], items: {type: object, required: [type], x-kubernetes-preserve-unknown-fields: true, properties: {type: {type: string}}}}
";

const SIGN: &str = "
apiVersion: clients.example.com/v1
kind: Sign
metadata: {name: hello}
spec: {text: Hello}
";

/// The real one in the place of our own: an APIService leads to it, and back when that is deleted.
#[test]
fn metrics_server_serves_the_metrics_of_ours() -> Result<()> {
    with_cluster(
        "metrics-server",
        || go_install("metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server@v0.9.0"),
        |cluster, program| {
            let kubeconfig = cluster.users_kubeconfig().display().to_string();
            let flags =
                ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"].map(|flag| format!("--{flag}={kubeconfig}"));
            let log = cluster.folder().join("metrics-server.log");
            let mut command = client(cluster, program);
            command.args(flags).args([
                "--secure-port=18444",
                "--kubelet-insecure-tls",
                "--metric-resolution=15s",
                "--kubelet-preferred-address-types=InternalIP",
            ]);
            command.arg(format!("--cert-dir={}", cluster.folder().join("metrics-certs").display()));
            let beside = Beside::start(&mut command, log)?;
            measured(cluster).with_context(|| beside.log_end())
        },
    )
}

fn measured(cluster: &Cluster) -> Result<()> {
    cluster.k("run idle --image=busybox -- sleep 1000")?;
    cluster.k("wait --for=condition=Ready pod/idle --timeout=60s")?;
    let node = cluster.k("get nodes -o jsonpath={.items[0].status.addresses[0].address}")?;
    cluster.apply(&METRICS.replace("NODE", &node))?;
    cluster.k("wait --for=condition=Available apiservice/v1beta1.metrics.k8s.io --timeout=60s")?;
    let nodes = eventually(2 * SOON, || cluster.k("top nodes --no-headers"))?;
    ensure!(nodes.starts_with("metrics-server-1 ") && nodes.contains('%'), "{nodes}");
    eventually(2 * SOON, || cluster.k("top pod idle --no-headers")).map(drop)?;
    let served = cluster.k("get apiservice v1beta1.metrics.k8s.io -o jsonpath={.spec.service.name}/{.status.conditions[0].reason}")?;
    ensure!(served == "metrics-server/Passed", "{served}");
    cluster.k("delete apiservice v1beta1.metrics.k8s.io")?;
    eventually(SOON, || cluster.k("top nodes --no-headers")).map(drop)
}

const METRICS: &str = "
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {ports: [{name: https, port: 443, targetPort: 18444}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics-server, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}}
addressType: IPv4
endpoints: [{addresses: [NODE], conditions: {ready: true}}]
ports: [{name: https, port: 18444}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  service: {name: metrics-server, namespace: kube-system}
  group: metrics.k8s.io
  version: v1beta1
  insecureSkipTLSVerify: true
  groupPriorityMinimum: 100
  versionPriority: 100
";

fn python() -> Result<PathBuf> {
    let venv = cache("python")?;
    let python = venv.join("bin/python");
    if run(Command::new(&python).args(["-c", "import kubernetes"])).is_err() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "kubernetes>=36,<37"]))?;
    }
    Ok(python)
}

#[test]
fn the_python_client() -> Result<()> {
    with_cluster("python", python, |cluster, python| {
        let said = run(client(cluster, python).arg(source("python").join("walk.py")))?;
        ensure!(said.matches("passed: ").count() == 4, "{said}");
        Ok(())
    })
}

fn kube_rs() -> Result<PathBuf> {
    let target = cache("kube-rs")?;
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--target-dir"]).arg(&target).current_dir(source("kube-rs"));
    run(&mut build)?;
    Ok(target.join("debug/kube-rs-walk"))
}

#[test]
fn kube_rs_works() -> Result<()> {
    with_cluster("kube-rs", kube_rs, |cluster, program| {
        let said = run(&mut client(cluster, program))?;
        ensure!(said.matches("passed: ").count() == 3, "{said}");
        Ok(())
    })
}

/// The definitions as the module has them; its own admission webhook behind a Service that leads to a process on the host.
#[test]
fn cert_manager_issues_a_certificate() -> Result<()> {
    with_cluster(
        "cert-manager",
        || go("cert-manager"),
        |cluster, program| {
            let module = run(Command::new("go")
                .args(["list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager"])
                .current_dir(source("cert-manager")))?;
            let definitions = Path::new(module.trim()).join("deploy/crds");
            let made = cluster.kubectl(&["apply", "--server-side", "-f", &definitions.display().to_string()])?;
            ensure!(made.matches("serverside-applied").count() == 6, "{made}");
            cluster.k("wait --for=condition=Established crd --all --timeout=30s")?;
            cluster.k("create namespace cert-manager")?;
            let node = cluster.k("get nodes -o jsonpath={.items[0].status.addresses[0].address}")?;
            cluster.apply(&WEBHOOK.replace("NODE", &node))?;
            let parts = ["webhook", "cainjector", "controller"].map(|part| {
                let log = cluster.folder().join(format!("{part}.log"));
                Beside::start(client(cluster, program).arg(part), log)
            });
            let parts = parts.into_iter().collect::<Result<Vec<_>>>()?;
            let logs = || parts.iter().map(|part| format!("--- {}\n{}\n", part.1.display(), part.log_end())).collect::<String>();
            certificates(cluster).with_context(logs)
        },
    )
}

fn certificates(cluster: &Cluster) -> Result<()> {
    // Until the webhook has a certificate and its CA is injected, nothing is taken.
    eventually(SOON, || cluster.apply(ISSUERS))?;
    cluster.k("wait --for=condition=Ready issuer/own certificate/root certificate/leaf --timeout=60s")?;
    let usages = cluster.k("get certificaterequests -o jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].reason}")?;
    ensure!(usages == "Issued Issued", "{usages}");
    issued(cluster, "leaf.example.com")?;
    injected(cluster)?;
    let wrong = ISSUERS.rsplit("---").next().unwrap_or_default().replace("dnsNames: [leaf.example.com]", "duration: 1m");
    let path = cluster.folder().join("wrong.yaml");
    std::fs::write(&path, wrong.replace("name: leaf", "name: wrong"))?;
    let said = refused(&mut cluster.kubectl_command(&["apply", "-f", &path.display().to_string()]))?;
    ensure!(said.contains("admission webhook \"webhook.cert-manager.io\" denied the request"), "{said}");
    // An edit has it issued anew, and so has the loss of the Secret.
    cluster.k("patch certificate leaf --type=merge -p {\"spec\":{\"dnsNames\":[\"other.example.com\"]}}")?;
    eventually(SOON, || issued(cluster, "other.example.com"))?;
    eventually(SOON, || {
        let revision = cluster.k("get certificate leaf -o jsonpath={.status.revision}")?;
        ensure!(revision == "2", "revision {revision}");
        Ok(())
    })?;
    cluster.k("wait --for=condition=Ready certificate/leaf --timeout=60s")?;
    cluster.k("delete secret leaf-tls")?;
    eventually(SOON, || issued(cluster, "other.example.com"))?;
    ingress(cluster)?;
    signing(cluster)
}

/// The Secret has a certificate for the name, by the CA beside it, with a key that fits.
fn issued(cluster: &Cluster, name: &str) -> Result<()> {
    let secret = cluster.json("get secret leaf-tls")?;
    ensure!(secret["type"] == "kubernetes.io/tls", "{secret}");
    let folder = cluster.folder();
    for (field, file) in [("tls\\.crt", "leaf.crt"), ("tls\\.key", "leaf.key"), ("ca\\.crt", "root.crt")] {
        let encoded = cluster.k(&format!("get secret leaf-tls -o jsonpath={{.data.{field}}}"))?;
        std::fs::write(folder.join("encoded"), encoded)?;
        std::fs::write(folder.join(file), run(Command::new("base64").arg("-d").arg(folder.join("encoded")))?)?;
    }
    let openssl = |line: &str| run(Command::new("openssl").args(line.split_whitespace()).current_dir(folder));
    openssl(&format!("verify -CAfile root.crt -verify_hostname {name} leaf.crt"))?;
    ensure!(openssl("x509 -in leaf.crt -noout -pubkey")? == openssl("pkey -in leaf.key -pubout")?, "the key fits");
    Ok(())
}

/// The cainjector fills in what its annotations ask for, and from a Certificate too.
fn injected(cluster: &Cluster) -> Result<()> {
    let root = cluster.k("get secret root-tls -o jsonpath={.data.ca\\.crt}")?;
    ensure!(!root.is_empty(), "the root has a CA");
    for configuration in ["validatingwebhookconfiguration/cert-manager-webhook", "mutatingwebhookconfiguration/cert-manager-webhook"] {
        let bundle = cluster.k(&format!("get {configuration} -o jsonpath={{.webhooks[0].clientConfig.caBundle}}"))?;
        ensure!(!bundle.is_empty(), "{configuration} has no bundle");
    }
    cluster.apply(INJECTED)?;
    eventually(SOON, || {
        let there = cluster.k("get apiservice v1.far.example.com -o jsonpath={.spec.caBundle}")?;
        ensure!(there == root, "an APIService has {there}");
        Ok(())
    })?;
    cluster.k("delete apiservice v1.far.example.com").map(drop)
}

const INJECTED: &str = "
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1.far.example.com, annotations: {cert-manager.io/inject-ca-from: default/root}}
spec:
  group: far.example.com
  version: v1
  groupPriorityMinimum: 10
  versionPriority: 10
  service: {name: far, namespace: default}
";

/// An Ingress that asks for it gets a certificate of its own, which goes with it.
fn ingress(cluster: &Cluster) -> Result<()> {
    cluster.apply(INGRESS)?;
    eventually(SOON, || cluster.k("wait --for=condition=Ready certificate/shop-tls --timeout=5s"))?;
    cluster.k("get secret shop-tls")?;
    cluster.k("delete ingress shop")?;
    eventually(SOON, || refused(&mut cluster.kubectl_command(&["get", "certificate", "shop-tls"]))).map(drop)
}

const INGRESS: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, annotations: {cert-manager.io/issuer: own}}
spec:
  tls: [{hosts: [shop.example.com], secretName: shop-tls}]
  rules:
  - host: shop.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: shop, port: {number: 80}}}}]}
";

/// Kubernetes' own requests, with an issuer as the signer.
fn signing(cluster: &Cluster) -> Result<()> {
    let folder = cluster.folder();
    let config = "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout own.key -subj /CN=own.example.com -out own.csr";
    run(Command::new("openssl").args(config.split_whitespace()).current_dir(folder))?;
    let encoded = run(Command::new("base64").arg("-w0").arg(folder.join("own.csr")))?;
    cluster.apply(&REQUEST.replace("PEM", &encoded))?;
    cluster.k("certificate approve own")?;
    eventually(SOON, || {
        let certificate = cluster.k("get csr own -o jsonpath={.status.certificate}")?;
        ensure!(!certificate.is_empty(), "not signed: {}", cluster.k("get csr own -o yaml")?);
        Ok(())
    })
}

const REQUEST: &str = "
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: own}
spec:
  signerName: issuers.cert-manager.io/default.own
  usages: [digital signature, server auth]
  request: PEM
";

const WEBHOOK: &str = "
apiVersion: v1
kind: Service
metadata: {name: cert-manager-webhook, namespace: cert-manager}
spec: {ports: [{name: https, port: 443, targetPort: 18443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cert-manager-webhook, namespace: cert-manager, labels: {kubernetes.io/service-name: cert-manager-webhook}}
addressType: IPv4
endpoints: [{addresses: [NODE], conditions: {ready: true}}]
ports: [{name: https, port: 18443}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata:
  name: cert-manager-webhook
  annotations: {cert-manager.io/inject-ca-from-secret: cert-manager/cert-manager-webhook-ca}
webhooks:
- name: webhook.cert-manager.io
  admissionReviewVersions: [v1]
  sideEffects: None
  timeoutSeconds: 10
  matchPolicy: Equivalent
  failurePolicy: Fail
  clientConfig: {service: {name: cert-manager-webhook, namespace: cert-manager, path: /validate}}
  rules:
  - apiGroups: [cert-manager.io, acme.cert-manager.io]
    apiVersions: [v1]
    operations: [CREATE, UPDATE]
    resources: ['*/*']
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata:
  name: cert-manager-webhook
  annotations: {cert-manager.io/inject-ca-from-secret: cert-manager/cert-manager-webhook-ca}
webhooks:
- name: webhook.cert-manager.io
  admissionReviewVersions: [v1]
  sideEffects: None
  timeoutSeconds: 10
  matchPolicy: Equivalent
  failurePolicy: Fail
  clientConfig: {service: {name: cert-manager-webhook, namespace: cert-manager, path: /mutate}}
  rules:
  - apiGroups: [cert-manager.io]
    apiVersions: [v1]
    operations: [CREATE]
    resources: [certificaterequests]
";

const ISSUERS: &str = "
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: self}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: root}
spec:
  isCA: true
  commonName: root
  secretName: root-tls
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {name: self}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: own}
spec: {ca: {secretName: root-tls}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: leaf}
spec:
  secretName: leaf-tls
  dnsNames: [leaf.example.com]
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {name: own}
";
