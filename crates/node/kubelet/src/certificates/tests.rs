use super::*;
use serde_json::{Value, json};
use tiphys_base::pki::read_certificate;
use tiphys_base::tasks::Tasks;
use tiphys_base::{FakeClock, SystemClock};
use tiphys_client::Informers;
use tiphys_meta::Gvr;
use tiphys_testing::FakeApi;
use tiphys_types::api::certificates::v1::CertificateSigningRequest;

const DAY: Duration = Duration::from_secs(86_400);

fn requests_gvr() -> Gvr {
    Gvr::new("certificates.k8s.io", "v1", "certificatesigningrequests")
}

/// A cluster that signs every request at once, or denies them all.
struct Cluster {
    api: FakeApi,
    tasks: Tasks,
    clock: Arc<FakeClock>,
}

impl Cluster {
    fn new(approves: bool) -> Cluster {
        let cluster = Cluster { api: FakeApi::new(), tasks: Tasks::new(), clock: FakeClock::at(SystemClock.now()) };
        let (api, clock) = (cluster.api.clone(), cluster.clock.clone());
        let ca = Authority::generate("kubernetes", clock.now(), DAY * 3650).expect("CA");
        let all = Informers::with_tasks(api.client(), cluster.tasks.clone()).of::<CertificateSigningRequest>();
        all.on_change(move |delta| {
            let request = delta.object();
            if request.status.as_ref().is_some_and(|s| s.certificate.is_some() || s.conditions.is_some()) {
                return true;
            }
            let pem = String::from_utf8(request.spec.request.0.clone()).expect("text");
            let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
            let status = match approves {
                true => {
                    let signed = ca.sign_request(&pem, &usages, clock.now(), DAY).expect("signed");
                    json!({"certificate": tiphys_meta::base64::encode(signed.as_bytes())})
                }
                false => json!({"conditions": [{"type": "Denied", "status": "True", "reason": "No", "message": "not today"}]}),
            };
            let name = request.metadata.name.clone().unwrap_or_default();
            api.change(&requests_gvr(), "", &name, |object| object["status"] = status);
            true
        });
        cluster
    }

    fn rotation(&self, store: PairStore, due: Timestamp) -> Rotation {
        let (client, tasks) = (self.api.client(), self.tasks.clone());
        let requests = Requests { client, tasks, signer: "kubernetes.io/kube-apiserver-client-kubelet", usage: "client auth" };
        let subject = Subject { common_name: "system:node:n1".into(), organizations: vec!["system:nodes".into()] };
        Rotation { subject, names: Names::default(), signer: Signer::Requests(requests), store: Some(store), shown: None, due }
    }

    fn asked(&self) -> Vec<Value> {
        self.api.list(&requests_gvr())
    }
}

#[tokio::test]
async fn a_client_certificate_is_asked_for_before_it_ends() {
    let cluster = Cluster::new(true);
    let folder = tempfile::tempdir().expect("folder");
    let mut config = Config::new("n1", folder.path());
    config.cert_dir = folder.path().join("pki");
    let first = own(&subject(&config), &serving_names(&config), cluster.clock.now()).expect("made");
    let (path, at_once) = client_files(&config, &first).expect("copied");
    assert!(at_once && path.ends_with("kubelet-client-current.pem"));
    let shown = Reloading::of_files(path.clone(), path.clone(), cluster.clock.clone()).expect("usable");
    let mut rotation = cluster.rotation(PairStore::new(&config.cert_dir, CLIENT), cluster.clock.now());
    for round in 1..=3 {
        let before = shown.shown();
        let due = rotation.step(cluster.clock.now()).await.expect("renewed");
        let asked = cluster.asked();
        assert_eq!(asked.len(), round);
        assert!(asked.iter().all(|r| r["spec"]["usages"] == json!(["digital signature", "client auth"])), "{asked:?}");
        let facts = read_certificate(&std::fs::read_to_string(&path).expect("there")).expect("a certificate");
        assert_eq!((facts.common_name.as_str(), facts.organizations.as_slice()), ("system:node:n1", &["system:nodes".to_owned()][..]));
        let part = due.duration_since(facts.not_before).as_secs_f64() / facts.not_after.duration_since(facts.not_before).as_secs_f64();
        assert!((0.7..=0.9).contains(&part), "{part}");
        cluster.clock.advance(Duration::from_secs(61));
        assert_ne!(shown.shown(), before, "whoever shows the files shows the new one");
        assert_eq!(rotation.step(cluster.clock.now()).await.expect("not due"), due);
        cluster.clock.set(due);
    }
    assert!(!client_files(&config, &first).expect("there").1, "what was asked for stays across a restart");
}

#[tokio::test]
async fn a_refusal_leaves_what_is_there() {
    let cluster = Cluster::new(false);
    let folder = tempfile::tempdir().expect("folder");
    let store = PairStore::new(folder.path(), CLIENT);
    let mut rotation = cluster.rotation(PairStore::new(folder.path(), CLIENT), cluster.clock.now());
    let error = rotation.step(cluster.clock.now()).await.expect_err("denied").to_string();
    assert!(error.ends_with("is denied: No not today"), "{error}");
    assert!(store.current().is_none() && rotation.due <= cluster.clock.now(), "it is tried again");
}

#[tokio::test]
async fn its_own_serving_certificate_is_renewed() {
    let clock = FakeClock::at(SystemClock.now());
    let config = Config::new("n1", "/nowhere");
    let (subject, names) = (subject(&config), serving_names(&config));
    let first = own(&subject, &names, clock.now()).expect("made");
    let shown = Reloading::new(
        Vec::new(),
        {
            let first = first.clone();
            move || Ok(first.clone())
        },
        clock.clone(),
    )
    .expect("usable");
    let due = plan::deadline(&first.cert_pem, 0.5).expect("a certificate");
    let mut rotation = Rotation { subject, names, signer: Signer::Own, store: None, shown: Some(shown.clone()), due };
    let before = shown.shown();
    assert_eq!(rotation.step(clock.now()).await.expect("not due"), due);
    assert_eq!(shown.shown(), before);
    clock.set(due);
    assert!(rotation.step(clock.now()).await.expect("renewed") > due);
    assert_ne!(shown.shown(), before);
}

#[test]
fn when_a_certificate_is_due_and_what_it_covers() {
    let now = Timestamp::from_second(1_800_000_000).expect("time");
    let config = Config::new("n1", "/nowhere");
    let names = serving_names(&config);
    let ca = Authority::generate("kubernetes", now, YEAR).expect("CA");
    let who = subject(&config);
    let pair = ca.issue(&who, &names, Use::Both, now, Duration::from_secs(1000 - 300)).expect("issued");
    let after = |chance: f64| plan::deadline(&pair.cert_pem, chance).expect("a certificate").as_second() - (now.as_second() - 300);
    assert_eq!([after(0.0), after(0.5), after(1.0)], [700, 800, 900]);
    assert!(plan::covers(&pair.cert_pem, &who, &names) && plan::covers(&pair.cert_pem, &who, &Names::default()));
    let mut moved = names.clone();
    moved.ips.push("192.0.2.7".parse().expect("address"));
    assert!(!plan::covers(&pair.cert_pem, &who, &moved), "a new address needs a new certificate");
    let other = Subject { common_name: "system:node:n2".into(), ..who.clone() };
    assert!(!plan::covers(&pair.cert_pem, &other, &names));
    assert!(plan::is_alive(&pair.cert_pem, now) && !plan::is_alive(&pair.cert_pem, now.saturating_add(YEAR).expect("time")));
}
