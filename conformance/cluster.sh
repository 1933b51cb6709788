#!/usr/bin/env bash
# Runs the official suite against a cluster of two nodes; called by `cargo xtask conformance` inside the kit's namespace.
#   cluster.sh PROGRAM FOLDER KIT [options of conformance.sh]
set -uo pipefail
program=$1 folder=$2 kit=$3; shift 3
export HOME=$folder/home KUBECONFIG=$folder/kubeconfig
mkdir -p "$HOME"
data=$folder/data name=conf
finish() {
  mkdir -p "$folder/out"
  cp "$data/clusters/$name/tiphys.log" "$folder/out/" 2>/dev/null
  cp "$data/clusters/$name/nodes/2/node.log" "$folder/out/" 2>/dev/null
  "$program" delete --name $name --data-dir "$data"
}
trap finish EXIT
# The second node asks the registry over the cluster's bridge.
registry=http://10.89.0.1:${KIT_REGISTRY_PORT:-5000}
"$program" up --name $name --data-dir "$data" --nodes 2 --detach --wait --node-cidr 10.89.0.0/24 \
  --registry-mirror docker.io=$registry --registry-mirror registry.k8s.io=$registry || exit 1
"$kit/conformance.sh" --out "${CONFORMANCE_OUT:-$folder/out}" "$@" "$KUBECONFIG"
