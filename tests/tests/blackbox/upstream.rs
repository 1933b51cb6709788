//! Upstream's controller manager and scheduler, unmodified and started as kubeadm starts them, against our API server and our kubelet: each
//! controller is given work, and what it writes is looked at. What needs a cloud, a CSI driver's own process or a metrics server is left out.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tiphys_tests::pki::Pki;
use tiphys_tests::{Registry, eventually, in_new_namespace, refused, run};

use crate::separate::{PATIENCE, Separate};

type Check = fn(&Separate) -> Result<()>;

/// First what only has to wait: its end is looked at last.
const CHECKS: [(&str, Check); 23] = [
    ("a node that never speaks, a job every minute", long_waits_begin),
    ("rollouts", rollouts),
    ("service accounts and the root CA", accounts),
    ("endpoints and slices", endpoints),
    ("disruption budgets", budgets),
    ("autoscalers", autoscalers),
    ("stateful sets and volumes", volumes),
    ("daemon sets and replication controllers", daemons),
    ("jobs", jobs),
    ("garbage collection", garbage),
    ("owners that are custom resources", custom_owners),
    ("namespaces", namespaces),
    ("certificates", certificates),
    ("quotas", quotas),
    ("aggregated roles", roles),
    ("admission policies", policies),
    ("bootstrap tokens", bootstrap),
    ("service networks", networks),
    ("attached volumes", attachments),
    ("resource claims", claims),
    ("what the scheduler cannot place, and preemption", placing),
    ("taints of nodes", taints),
    ("what had to wait", long_waits_end),
];

#[test]
fn upstreams_controllers_do_their_work() -> Result<()> {
    in_new_namespace(|| {
        let _registry = Registry::start()?;
        let mut it = Separate::new()?;
        let worked = it.start_apiserver().and_then(|()| it.start_upstreams()).and_then(|()| renewals(&it));
        let worked = worked.and_then(|()| it.start_node()).and_then(|()| all(&it));
        worked.with_context(|| it.logs())
    })
}

/// As kubeadm has it: a node may renew its own certificate.
fn renewals(it: &Separate) -> Result<()> {
    let role = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient";
    it.kubectl(&format!("create clusterrolebinding renewals --clusterrole={role} --group=system:nodes")).map(drop)
}

fn all(it: &Separate) -> Result<()> {
    it.kubectl("get --raw /livez")?;
    it.tells("get node alone -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}", |said| said == "True")?;
    it.tells("get node alone -o jsonpath={.spec.podCIDR}", |said| said.starts_with("10.244."))?;
    let mut failures = Vec::new();
    for (name, check) in CHECKS {
        let begun = Instant::now();
        let outcome = check(it);
        println!("{}: {name} in {:.1} s", if outcome.is_ok() { "passed" } else { "failed" }, begun.elapsed().as_secs_f32());
        // Each stands for itself: one that fails hides no other.
        failures.extend(outcome.err().map(|error| format!("{name}: {error:#}")));
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

fn long_waits_begin(it: &Separate) -> Result<()> {
    it.apply(LONG_WAITS).map(drop)
}

const LONG_WAITS: &str = "
apiVersion: v1
kind: Node
metadata: {name: ghost, labels: {ghost: 'true'}, annotations: {volumes.kubernetes.io/controller-managed-attach-detach: 'true'}}
---
apiVersion: v1
kind: Pod
metadata: {name: lost}
spec:
  nodeName: ghost
  tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}]
  containers: [{name: c, image: busybox}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: minutely}
spec:
  schedule: '* * * * *'
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: ['true']}]}}}}
";

fn long_waits_end(it: &Separate) -> Result<()> {
    it.says("get node ghost -o jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}", "NodeStatusNeverUpdated")?;
    it.tells("get node ghost -o jsonpath={.spec.taints[*].key}", |said| said.contains("node.kubernetes.io/unreachable"))?;
    // Evicted by its taint, then swept up: nobody confirms its end.
    it.tells("get pod lost --ignore-not-found -o jsonpath={.metadata.deletionTimestamp}", |said| !said.is_empty())?;
    it.kubectl("delete node ghost")?;
    it.says("get pod lost --ignore-not-found", "")?;
    it.tells("get cronjob minutely -o jsonpath={.status.lastSuccessfulTime}", |said| !said.is_empty())?;
    it.kubectl("delete cronjob minutely").map(drop)
}

fn rollouts(it: &Separate) -> Result<()> {
    it.kubectl("create deployment web --image=nginx --replicas=3")?;
    it.kubectl("rollout status deployment/web --timeout=120s")?;
    it.kubectl("set env deployment/web COLOUR=green")?;
    it.kubectl("rollout status deployment/web --timeout=120s")?;
    let sets = "get replicasets -l app=web -o jsonpath={.items[*].status.replicas}/{.items[*].status.availableReplicas}";
    it.tells(sets, |said| ["0 3/3", "3 0/3"].contains(&said))?;
    it.kubectl("rollout undo deployment/web")?;
    it.kubectl("rollout status deployment/web --timeout=120s")?;
    it.says("get deployment web -o jsonpath={.spec.template.spec.containers[0].env}", "")?;
    let history = it.kubectl("rollout history deployment/web")?;
    ensure!(history.contains("\n2 ") && history.contains("\n3 ") && !history.contains("\n1 "), "{history}");
    it.kubectl("patch deployment web -p {\"spec\":{\"progressDeadlineSeconds\":2,\"minReadySeconds\":1}}")?;
    it.kubectl("set image deployment/web nginx=nowhere.example/none:1")?;
    it.says("get deployment web -o jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}", "ProgressDeadlineExceeded")?;
    it.kubectl("rollout undo deployment/web")?;
    it.says("get deployment web -o jsonpath={.status.readyReplicas}/{.status.updatedReplicas}/{.status.unavailableReplicas}", "3/3/")
}

fn accounts(it: &Separate) -> Result<()> {
    it.kubectl("create namespace accounts")?;
    it.tells("get configmap kube-root-ca.crt -n accounts -o jsonpath={.data}", |said| said.contains("BEGIN CERTIFICATE"))?;
    it.says("get serviceaccount default -n accounts -o name", "serviceaccount/default\n")?;
    it.apply(TOKEN)?;
    it.tells("get secret old -n accounts -o jsonpath={.data.token}", |said| !said.is_empty())?;
    it.tells("get secret old -n accounts -o jsonpath={.data.ca\\.crt}", |said| !said.is_empty())?;
    // What the controller manager has signed, the API server believes.
    let token = it.kubectl("get secret old -n accounts -o go-template={{.data.token|base64decode}}")?;
    let ask = format!(
        "auth whoami --kubeconfig=/dev/null --server=https://172.31.5.1:6443 --certificate-authority={} --token={token}",
        it.pem("ca.crt")
    );
    it.tells(&format!("{ask} -o jsonpath={{.status.userInfo.username}}"), |said| said == "system:serviceaccount:accounts:default")?;
    it.kubectl("delete serviceaccount default -n accounts")?;
    it.says("get serviceaccount default -n accounts -o name", "serviceaccount/default\n")?;
    it.says("get secret old -n accounts --ignore-not-found", "")
}

const TOKEN: &str = "
apiVersion: v1
kind: Secret
metadata: {name: old, namespace: accounts, annotations: {kubernetes.io/service-account.name: default}}
type: kubernetes.io/service-account-token
";

fn endpoints(it: &Separate) -> Result<()> {
    it.kubectl("expose deployment web --port=80")?;
    let words = |said: &str| said.split_whitespace().count();
    it.tells("get endpoints web -o jsonpath={.subsets[*].addresses[*].ip}", |said| words(said) == 3)?;
    let slices =
        "get endpointslices -l kubernetes.io/service-name=web -o jsonpath={.items[*].endpoints[?(@.conditions.ready)].addresses[0]}";
    it.tells(slices, |said| words(said) == 3)?;
    it.kubectl("scale deployment web --replicas=2")?;
    it.tells(slices, |said| words(said) == 2)?;
    it.apply(MIRRORED)?;
    let mirror = "get endpointslices -l endpointslice.kubernetes.io/managed-by=endpointslicemirroring-controller.k8s.io,kubernetes.io/service-name=by-hand";
    it.says(&format!("{mirror} -o jsonpath={{.items[*].endpoints[*].addresses[*]}}"), "192.0.2.7")
}

const MIRRORED: &str = "
apiVersion: v1
kind: Service
metadata: {name: by-hand}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: by-hand}
subsets: [{addresses: [{ip: 192.0.2.7}], ports: [{port: 80}]}]
";

fn budgets(it: &Separate) -> Result<()> {
    it.kubectl("create poddisruptionbudget web --selector=app=web --min-available=1")?;
    let status =
        "get pdb web -o jsonpath={.status.currentHealthy}/{.status.desiredHealthy}/{.status.expectedPods}/{.status.disruptionsAllowed}";
    it.says(status, "2/1/2/1")?;
    it.kubectl("patch pdb web -p {\"spec\":{\"minAvailable\":2}}")?;
    it.says(status, "2/2/2/0")?;
    let said = refused(&mut it.kubectl_command("drain alone --pod-selector=app=web --timeout=2s"))?;
    ensure!(said.contains("violate the pod's disruption budget"), "{said}");
    it.kubectl("uncordon alone")?;
    it.kubectl("delete pdb web").map(drop)
}

/// Without metrics it still keeps to its bounds.
fn autoscalers(it: &Separate) -> Result<()> {
    it.apply(AUTOSCALER)?;
    it.says("get deployment web -o jsonpath={.status.readyReplicas}", "3")?;
    it.says("get hpa web -o jsonpath={.status.conditions[?(@.type==\"ScalingActive\")].reason}", "FailedGetResourceMetric")?;
    it.kubectl("delete hpa web").map(drop)
}

const AUTOSCALER: &str = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 3
  maxReplicas: 5
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
";

fn volumes(it: &Separate) -> Result<()> {
    for number in ["0", "1"] {
        let folder = it.path(&format!("volume-{number}"));
        std::fs::create_dir_all(&folder)?;
        it.apply(&VOLUME.replace("NUMBER", number).replace("FOLDER", &folder))?;
    }
    it.apply(STATEFUL)?;
    it.kubectl("rollout status statefulset/db --timeout=120s")?;
    it.says("get pvc -l app=db -o jsonpath={.items[*].metadata.name}/{.items[*].status.phase}", "data-db-0 data-db-1/Bound Bound")?;
    it.says("exec db-1 -- cat /data/name", "db-1\n")?;
    // In use, so it stays until the pod is gone.
    it.kubectl("delete pvc data-db-1 --wait=false")?;
    it.tells("get pvc data-db-1 -o jsonpath={.metadata.finalizers}", |said| said.contains("kubernetes.io/pvc-protection"))?;
    it.kubectl("scale statefulset db --replicas=1")?;
    it.says("get pvc data-db-1 --ignore-not-found", "")?;
    it.kubectl("patch statefulset db -p {\"spec\":{\"template\":{\"metadata\":{\"annotations\":{\"again\":\"1\"}}}}}")?;
    it.tells("get statefulset db -o jsonpath={.status.currentRevision}/{.status.updateRevision}/{.status.readyReplicas}", |said| {
        let parts: Vec<&str> = said.split('/').collect();
        parts.len() == 3 && parts[0] == parts[1] && parts[2] == "1"
    })?;
    it.kubectl("delete statefulset db")?;
    it.says("get pvc -l app=db -o name", "")?;
    it.says("get pv volume-0 volume-1 -o jsonpath={.items[*].status.phase}", "Released Released")?;
    it.kubectl("delete pv volume-0 volume-1 --timeout=60s").map(drop)
}

const VOLUME: &str = "
apiVersion: v1
kind: PersistentVolume
metadata: {name: volume-NUMBER}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: by-hand
  persistentVolumeReclaimPolicy: Retain
  local: {path: FOLDER}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [alone]}]}]}}
";

const STATEFUL: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: by-hand}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete, whenScaled: Retain}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: c
        image: busybox
        command: [sh, -c, 'hostname > /data/name; sleep 1000']
        readinessProbe: {exec: {command: [cat, /data/name]}, periodSeconds: 1}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], storageClassName: by-hand, resources: {requests: {storage: 1Gi}}}
";

fn daemons(it: &Separate) -> Result<()> {
    it.apply(DAEMONS)?;
    it.kubectl("rollout status daemonset/everywhere --timeout=120s")?;
    it.kubectl("set env daemonset/everywhere COLOUR=green")?;
    it.kubectl("rollout status daemonset/everywhere --timeout=120s")?;
    it.kubectl("rollout undo daemonset/everywhere --to-revision=1")?;
    it.kubectl("rollout status daemonset/everywhere --timeout=120s")?;
    let revisions = "get controllerrevisions -l app=everywhere -o jsonpath={.items[*].revision}";
    it.tells(revisions, |said| ["2 3", "3 2"].contains(&said))?;
    it.says("get rc old -o jsonpath={.status.readyReplicas}", "1")?;
    it.kubectl("delete daemonset/everywhere rc/old").map(drop)
}

const DAEMONS: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      terminationGracePeriodSeconds: 0
      nodeSelector: {kubernetes.io/hostname: alone}
      containers: [{name: c, image: busybox, command: [sleep, '1000']}]
---
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: old}}
    spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: busybox, command: [sleep, '1000']}]}
";

fn jobs(it: &Separate) -> Result<()> {
    it.apply(JOBS)?;
    it.kubectl("wait --for=condition=Complete job/indexed --timeout=120s")?;
    it.says("get job indexed -o jsonpath={.status.completedIndexes}/{.status.succeeded}", "0-2/3")?;
    it.kubectl("wait --for=condition=Failed job/failing --timeout=120s")?;
    it.says("get job failing -o jsonpath={.status.conditions[?(@.type==\"Failed\")].reason}", "BackoffLimitExceeded")?;
    it.says("get job passing --ignore-not-found", "")?;
    it.says("get pods -l job-name=passing -o name", "")?;
    it.kubectl("delete job indexed failing").map(drop)
}

const JOBS: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: indexed}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: [sh, -c, 'exit 0']}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: failing}
spec:
  backoffLimit: 0
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: ['false']}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: passing}
spec:
  ttlSecondsAfterFinished: 1
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: ['true']}]}}
";

fn garbage(it: &Separate) -> Result<()> {
    for how in ["foreground", "background", "orphan"] {
        it.kubectl(&format!("create deployment {how} --image=nginx --replicas=0"))?;
        it.tells(&format!("get replicasets -l app={how} -o name"), |said| !said.is_empty())?;
        it.kubectl(&format!("delete deployment {how} --cascade={how} --timeout=60s"))?;
    }
    it.says("get replicasets -l app=foreground -o name", "")?;
    it.says("get replicasets -l app=background -o name", "")?;
    let left = it.kubectl("get replicasets -l app=orphan -o jsonpath={.items[*].metadata.ownerReferences}/{.items[*].kind}")?;
    ensure!(left == "/ReplicaSet", "{left}");
    it.kubectl("delete replicaset -l app=orphan").map(drop)
}

fn custom_owners(it: &Separate) -> Result<()> {
    it.apply(OWNERS)?;
    it.kubectl("wait --for=condition=Established crd/owners.upstream.example.com --timeout=60s")?;
    it.apply("{apiVersion: upstream.example.com/v1, kind: Owner, metadata: {name: boss}}")?;
    let uid = it.kubectl("get owner boss -o jsonpath={.metadata.uid}")?;
    it.apply(&OWNED.replace("UID", &uid))?;
    it.kubectl("delete owner boss")?;
    it.says("get configmap owned --ignore-not-found", "")
}

const OWNERS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: owners.upstream.example.com}
spec:
  group: upstream.example.com
  scope: Namespaced
  names: {plural: owners, singular: owner, kind: Owner}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
";

const OWNED: &str = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  ownerReferences: [{apiVersion: upstream.example.com/v1, kind: Owner, name: boss, uid: UID}]
";

fn namespaces(it: &Separate) -> Result<()> {
    it.kubectl("create namespace doomed")?;
    it.kubectl("create configmap held -n doomed")?;
    it.kubectl("create deployment doomed --image=nginx -n doomed")?;
    it.apply(
        "{apiVersion: upstream.example.com/v1, kind: Owner, metadata: {name: inside, namespace: doomed, finalizers: [example.com/hold]}}",
    )?;
    it.kubectl("rollout status deployment/doomed -n doomed --timeout=120s")?;
    it.kubectl("delete namespace doomed --wait=false")?;
    it.says(
        "get namespace doomed -o jsonpath={.status.conditions[?(@.type==\"NamespaceFinalizersRemaining\")].reason}",
        "SomeFinalizersRemain",
    )?;
    it.says("get all,configmaps -n doomed -o name", "")?;
    it.kubectl("patch owner inside -n doomed --type=merge -p {\"metadata\":{\"finalizers\":null}}")?;
    it.says("get namespace doomed --ignore-not-found", "")?;
    it.kubectl("delete crd owners.upstream.example.com --timeout=60s").map(drop)
}

fn request(it: &Separate, name: &str, signer: &str, pem: &str) -> Result<String> {
    let path = it.path(name);
    std::fs::write(&path, pem)?;
    let encoded = run(Command::new("base64").args(["-w0", &path]))?;
    let text = REQUEST.replace("NAME", name).replace("SIGNER", signer).replace("PEM", &encoded);
    std::fs::write(&path, text)?;
    Ok(path)
}

const REQUEST: &str = "
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: NAME}
spec:
  signerName: kubernetes.io/SIGNER
  expirationSeconds: 3600
  usages: [digital signature, client auth]
  request: PEM
";

fn certificates(it: &Separate) -> Result<()> {
    let issued = |name: &str| it.tells(&format!("get csr {name} -o jsonpath={{.status.certificate}}"), |said| !said.is_empty());
    let path = request(it, "person", "kube-apiserver-client", &Pki::request("jane", "developers")?)?;
    it.kubectl(&format!("create -f {path}"))?;
    it.kubectl("certificate approve person")?;
    issued("person")?;
    let path = request(it, "node", "kube-apiserver-client-kubelet", &Pki::request("system:node:alone", "system:nodes")?)?;
    it.kubectl(&format!("create -f {path} --as=system:node:alone --as-group=system:nodes --as-group=system:authenticated"))?;
    issued("node")?;
    it.says("get csr node -o jsonpath={.status.conditions[0].reason}", "AutoApproved")?;
    kubelets_own(it)
}

/// Our kubelet has asked for both of its certificates: upstream approves the one by itself, a person the other.
fn kubelets_own(it: &Separate) -> Result<()> {
    let of = |signer: &str, what: &str| {
        let found = format!("jsonpath={{.items[?(@.spec.signerName==\"kubernetes.io/{signer}\")]{what}}}");
        it.kubectl(&format!("get csr --field-selector=spec.signerName=kubernetes.io/{signer} -o {found}"))
    };
    eventually(PATIENCE, || {
        let current = std::fs::read_link(it.path("kubelet/pki/kubelet-client-current.pem"))?;
        ensure!(!current.ends_with("kubelet-client-first.pem"), "the kubeconfig's certificate is still in use");
        Ok(())
    })?;
    let asked = of("kubelet-serving", ".metadata.name")?;
    for name in asked.split_whitespace() {
        it.kubectl(&format!("certificate approve {name}"))?;
    }
    let show = format!("echo | openssl s_client -connect 172.31.5.1:10250 -CAfile {} -verify_return_error", it.pem("ca.crt"));
    let shown = eventually(PATIENCE, || run(Command::new("sh").args(["-c", &show])))?;
    ensure!(shown.contains("system:node:alone"), "{shown}");
    it.kubectl("logs deployment/web --tail=1").map(drop)
}

fn quotas(it: &Separate) -> Result<()> {
    it.kubectl("create namespace bounded")?;
    it.kubectl("create quota all -n bounded --hard=configmaps=2,pods=1,count/deployments.apps=1,requests.cpu=1")?;
    it.tells("get quota all -n bounded -o jsonpath={.status.used.configmaps}", |said| said == "1")?;
    it.kubectl("create configmap one -n bounded")?;
    let said = refused(&mut it.kubectl_command("create configmap two -n bounded"))?;
    ensure!(said.contains("exceeded quota: all, requested: configmaps=1, used: configmaps=2, limited: configmaps=2"), "{said}");
    it.kubectl("create deployment one --image=nginx --replicas=0 -n bounded")?;
    it.says("get quota all -n bounded -o jsonpath={.status.used.count/deployments\\.apps}", "1")?;
    // Given back by the controller, not by the deletion.
    it.kubectl("delete configmap one -n bounded")?;
    it.says("get quota all -n bounded -o jsonpath={.status.used.configmaps}", "1")?;
    it.kubectl("delete namespace bounded --timeout=120s").map(drop)
}

fn roles(it: &Separate) -> Result<()> {
    it.apply(ROLES)?;
    it.says("get clusterrole sum -o jsonpath={.rules[*].resources[*]}", "apples pears")?;
    it.tells("get clusterrole view -o jsonpath={.rules[*].resources}", |said| said.contains("pears"))?;
    it.kubectl("delete clusterrole pears")?;
    it.says("get clusterrole sum -o jsonpath={.rules[*].resources[*]}", "apples")
}

const ROLES: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: sum}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {fruit: 'yes'}}]}
rules: []
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: apples, labels: {fruit: 'yes'}}
rules: [{apiGroups: [fruit.example.com], resources: [apples], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: pears, labels: {fruit: 'yes', rbac.authorization.k8s.io/aggregate-to-view: 'true'}}
rules: [{apiGroups: [fruit.example.com], resources: [pears], verbs: [get]}]
";

/// The controller checks the types of a policy's expressions against our OpenAPI documents.
fn policies(it: &Separate) -> Result<()> {
    it.apply(POLICIES)?;
    it.says(
        "get validatingadmissionpolicy right -o jsonpath={.status.observedGeneration}/{.status.typeChecking.expressionWarnings}",
        "1/",
    )?;
    it.tells("get validatingadmissionpolicy wrong -o jsonpath={.status.typeChecking.expressionWarnings[0].warning}", |said| {
        said.contains("undefined field 'replicaz'")
    })
}

const POLICIES: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: right}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]}
  validations: [{expression: 'object.spec.replicas <= 5'}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: wrong}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]}
  validations: [{expression: 'object.spec.replicaz <= 5'}]
";

fn bootstrap(it: &Separate) -> Result<()> {
    it.apply(BOOTSTRAP)?;
    it.tells("get configmap cluster-info -n kube-public -o jsonpath={.data.jws-kubeconfig-abcdef}", |said| said.contains(".."))?;
    it.says("get secret bootstrap-token-ghijkl -n kube-system --ignore-not-found", "")?;
    let whoami =
        "auth whoami --kubeconfig=/dev/null --server=https://172.31.5.1:6443 --insecure-skip-tls-verify --token=abcdef.0123456789abcdef";
    it.says(&format!("{whoami} -o jsonpath={{.status.userInfo.username}}"), "system:bootstrap:abcdef")
}

const BOOTSTRAP: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: cluster-info, namespace: kube-public}
data: {kubeconfig: 'apiVersion: v1'}
---
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-abcdef, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData:
  {token-id: abcdef, token-secret: 0123456789abcdef, usage-bootstrap-signing: 'true', usage-bootstrap-authentication: 'true'}
---
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-ghijkl, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData: {token-id: ghijkl, token-secret: 0123456789abcdef, expiration: '2020-01-01T00:00:00Z'}
";

fn networks(it: &Separate) -> Result<()> {
    it.says("get servicecidr kubernetes -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}", "True")?;
    it.apply("{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: more}, spec: {cidrs: [10.97.0.0/24]}}")?;
    it.says("get servicecidr more -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}", "True")?;
    it.tells("get servicecidr more -o jsonpath={.metadata.finalizers}", |said| said.contains("networking.k8s.io/service-cidr-finalizer"))?;
    it.kubectl("create service clusterip far --tcp=80 --clusterip=10.97.0.9")?;
    it.kubectl("delete servicecidr more --wait=false")?;
    it.says("get servicecidr more -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}", "False")?;
    it.kubectl("delete service far")?;
    it.says("get servicecidr more --ignore-not-found", "")
}

/// The attach-detach controller asks for an attachment; what the driver's process would answer is written here.
fn attachments(it: &Separate) -> Result<()> {
    it.apply(ATTACHED)?;
    it.says("get volumeattachments -o jsonpath={.items[*].spec.nodeName}/{.items[*].spec.source.persistentVolumeName}", "ghost/far")?;
    let name = it.kubectl("get volumeattachments -o jsonpath={.items[0].metadata.name}")?;
    it.kubectl(&format!("patch volumeattachment {name} --subresource=status --type=merge -p {{\"status\":{{\"attached\":true}}}}"))?;
    it.says("get node ghost -o jsonpath={.status.volumesAttached[*].name}", "kubernetes.io/csi/csi.example.com^far")?;
    it.kubectl("delete pod attached --grace-period=0 --force")?;
    it.says("get volumeattachments -o name", "")?;
    it.kubectl("delete pvc/far pv/far --timeout=60s").map(drop)
}

const ATTACHED: &str = "
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: csi.example.com}
spec: {attachRequired: true}
---
apiVersion: storage.k8s.io/v1
kind: CSINode
metadata: {name: ghost}
spec: {drivers: [{name: csi.example.com, nodeID: ghost, topologyKeys: []}]}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: far}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: ''
  persistentVolumeReclaimPolicy: Retain
  csi: {driver: csi.example.com, volumeHandle: far}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: far}
spec: {accessModes: [ReadWriteOnce], storageClassName: '', volumeName: far, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: attached}
spec:
  nodeName: ghost
  containers: [{name: c, image: busybox, volumeMounts: [{name: far, mountPath: /far}]}]
  volumes: [{name: far, persistentVolumeClaim: {claimName: far}}]
";

/// A claim is made from its template by one controller and allocated by the scheduler.
fn claims(it: &Separate) -> Result<()> {
    it.apply(CLAIMS)?;
    let status =
        "get resourceclaims -o jsonpath={.items[*].status.allocation.devices.results[*].device}/{.items[*].status.reservedFor[*].name}";
    it.says(status, "chip-0/computes")?;
    it.kubectl("delete pod computes --grace-period=0 --force")?;
    it.says("get resourceclaims -o name", "")?;
    it.kubectl("delete resourceslice/alone deviceclass/chips resourceclaimtemplate/chip").map(drop)
}

const CLAIMS: &str = "
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: chips}
spec: {selectors: [{cel: {expression: 'device.driver == \"chips.example.com\"'}}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: alone}
spec:
  driver: chips.example.com
  nodeName: alone
  pool: {name: alone, generation: 1, resourceSliceCount: 1}
  devices: [{name: chip-0}]
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: chip}
spec: {spec: {devices: {requests: [{name: one, exactly: {deviceClassName: chips}}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: computes}
spec:
  containers: [{name: c, image: busybox, command: [sleep, '1000'], resources: {claims: [{name: chip}]}}]
  resourceClaims: [{name: chip, resourceClaimTemplateName: chip}]
";

fn placing(it: &Separate) -> Result<()> {
    it.apply(PLACING)?;
    let condition = "-o jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].reason}";
    it.says(&format!("get pod nowhere {condition}"), "Unschedulable")?;
    it.tells("get events --field-selector reason=FailedScheduling -o jsonpath={.items[*].message}", |said| said.contains("node affinity"))?;
    it.says(&format!("get pod gated {condition}"), "SchedulingGated")?;
    it.kubectl("patch pod gated --type=json -p [{\"op\":\"remove\",\"path\":\"/spec/schedulingGates\"}]")?;
    it.kubectl("wait --for=condition=Ready pod/gated pod/low --timeout=120s")?;
    it.apply(URGENT)?;
    it.kubectl("wait --for=condition=Ready pod/urgent --timeout=120s")?;
    it.says("get pod low --ignore-not-found", "")?;
    it.kubectl("delete pod urgent gated nowhere --grace-period=0 --force").map(drop)
}

/// A host port makes room scarce whatever the machine is.
const PLACING: &str = "
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: urgent}
value: 1000
---
apiVersion: v1
kind: Pod
metadata: {name: nowhere}
spec: {nodeSelector: {no: where}, containers: [{name: c, image: busybox}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gated}
spec: {schedulingGates: [{name: example.com/wait}], containers: [{name: c, image: busybox, command: [sleep, '1000']}]}
---
apiVersion: v1
kind: Pod
metadata: {name: low}
spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: busybox, command: [sleep, '1000'], ports: [{containerPort: 1, hostPort: 7077}]}]}
";

const URGENT: &str = "
apiVersion: v1
kind: Pod
metadata: {name: urgent}
spec:
  priorityClassName: urgent
  containers: [{name: c, image: busybox, command: [sleep, '1000'], ports: [{containerPort: 1, hostPort: 7077}]}]
";

fn taints(it: &Separate) -> Result<()> {
    it.kubectl("cordon alone")?;
    it.tells("get node alone -o jsonpath={.spec.taints}", |said| said.contains("node.kubernetes.io/unschedulable"))?;
    it.kubectl("uncordon alone")?;
    it.says("get node alone -o jsonpath={.spec.taints}", "")?;
    it.kubectl("run stays --image=nginx")?;
    it.kubectl("wait --for=condition=Ready pod/stays --timeout=120s")?;
    it.kubectl("taint node alone away=now:NoExecute")?;
    it.says("get pod stays --ignore-not-found", "")?;
    it.kubectl("taint node alone away-").map(drop)
}
