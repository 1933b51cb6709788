"""The Python client as its users write it, run by tests/tests/blackbox/clients.rs with KUBECONFIG set."""

import threading

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

NAMESPACE = "pythons"


def refused(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == code, error
        return error
    raise AssertionError(f"{call.__name__} was not refused with {code}")


def objects(core):
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    wanted = {"metadata": {"name": "a", "labels": {"k": "v"}}, "data": {"x": "1"}}
    made = core.create_namespaced_config_map(NAMESPACE, wanted)
    assert made.data == {"x": "1"} and made.metadata.uid
    assert "already exists" in refused(409, core.create_namespaced_config_map, NAMESPACE, wanted).body
    patched = core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"y": "2"}})
    assert patched.data == {"x": "1", "y": "2"}
    patched.data["z"] = "3"
    core.replace_namespaced_config_map("a", NAMESPACE, patched)
    refused(409, core.replace_namespaced_config_map, "a", NAMESPACE, patched)
    found = core.list_namespaced_config_map(NAMESPACE, label_selector="k in (v,w)")
    assert [item.metadata.name for item in found.items] == ["a"]
    assert "Not Found" in refused(404, core.read_namespaced_config_map, "none", NAMESPACE).reason
    wrong = {"metadata": {"name": "Wrong_"}, "data": {}}
    assert "a lowercase RFC 1123 subdomain" in refused(422, core.create_namespaced_config_map, NAMESPACE, wrong).body


def watching(core):
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    seen = []
    threading.Timer(0.1, lambda: core.delete_namespaced_config_map("a", NAMESPACE)).start()
    events = watch.Watch()
    for event in events.stream(core.list_namespaced_config_map, NAMESPACE, resource_version=version, timeout_seconds=30):
        seen.append((event["type"], event["object"].metadata.name))
        events.stop()
    assert seen == [("DELETED", "a")], seen


def running(core, apps):
    labels = {"app": "py"}
    pod = {"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "image": "busybox", "command": ["sh", "-c", "echo ready; httpd -f -p 8080 -h /etc"], "ports": [{"containerPort": 8080}]}]}
    deployment = {"metadata": {"name": "py"}, "spec": {"replicas": 1, "selector": {"matchLabels": labels},
                  "template": {"metadata": {"labels": labels}, "spec": pod}}}
    apps.create_namespaced_deployment(NAMESPACE, deployment)
    events = watch.Watch()
    for event in events.stream(apps.list_namespaced_deployment, NAMESPACE, timeout_seconds=60):
        if event["object"].status.available_replicas == 1:
            events.stop()
    apps.patch_namespaced_deployment_scale("py", NAMESPACE, {"spec": {"replicas": 1}})
    name = core.list_namespaced_pod(NAMESPACE, label_selector="app=py").items[0].metadata.name
    # Followed, since it may run before it speaks.
    said = core.read_namespaced_pod_log(name, NAMESPACE, follow=True, limit_bytes=6, _preload_content=False)
    assert said.data == b"ready\n", said.data
    said = stream(core.connect_get_namespaced_pod_exec, name, NAMESPACE, command=["cat", "/etc/hostname"], stdout=True, stderr=True)
    assert said.strip() == name, said
    talk = stream(core.connect_get_namespaced_pod_exec, name, NAMESPACE, command=["sh"], stdin=True, stdout=True, stderr=True, _preload_content=False)
    talk.write_stdin("echo heard; exit 3\n")
    talk.run_forever(timeout=10)
    assert talk.read_stdout().strip() == "heard" and talk.returncode == 3, talk.returncode
    forwarded = portforward(core.connect_get_namespaced_pod_portforward, name, NAMESPACE, ports="8080")
    socket = forwarded.socket(8080)
    socket.setblocking(True)
    socket.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
    answer = b""
    while more := socket.recv(4096):
        answer += more
    assert name.encode() in answer, answer


def loosely(api):
    definition = {
        "metadata": {"name": "snakes.py.example.com"},
        "spec": {"group": "py.example.com", "scope": "Namespaced", "names": {"plural": "snakes", "kind": "Snake"},
                 "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
                     "type": "object", "properties": {"spec": {"type": "object", "properties": {"length": {"type": "integer", "minimum": 1}}}}}}}]}}
    client.ApiextensionsV1Api(api).create_custom_resource_definition(definition)
    loose = dynamic.DynamicClient(api)
    definitions = loose.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
    for event in definitions.watch(name="snakes.py.example.com", timeout=30):
        conditions = (event["raw_object"].get("status") or {}).get("conditions") or []
        if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
            break
    loose.resources.invalidate_cache()
    snakes = loose.resources.get(api_version="py.example.com/v1", kind="Snake")
    snake = {"apiVersion": "py.example.com/v1", "kind": "Snake", "metadata": {"name": "s"}, "spec": {"length": 3}}
    assert snakes.create(snake, namespace=NAMESPACE).spec.length == 3
    applied = snakes.server_side_apply(body={**snake, "spec": {"length": 4}}, name="s", namespace=NAMESPACE,
                                       field_manager="py", force_conflicts=True)
    assert applied.spec.length == 4
    custom = client.CustomObjectsApi(api)
    assert custom.list_cluster_custom_object("py.example.com", "v1", "snakes")["items"][0]["spec"]["length"] == 4
    refused(422, custom.patch_namespaced_custom_object, "py.example.com", "v1", NAMESPACE, "snakes", "s", {"spec": {"length": 0}})
    custom.delete_namespaced_custom_object("py.example.com", "v1", NAMESPACE, "snakes", "s")
    client.ApiextensionsV1Api(api).delete_custom_resource_definition("snakes.py.example.com")


def main():
    config.load_kube_config()
    api = client.ApiClient()
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    assert client.VersionApi(api).get_code().git_version.startswith("v1.36")
    for name, part in [("objects", lambda: objects(core)), ("watching", lambda: watching(core)), ("running", lambda: running(core, apps)),
                       ("loosely", lambda: loosely(api))]:
        part()
        print("passed:", name)
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": NAMESPACE}, "spec": {"ports": [{"port": 80}]}}
    utils.create_from_dict(api, manifest)
    core.delete_namespace(NAMESPACE)


main()
