package main

import (
	"context"
	"fmt"
	"os"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	kubeinformers "k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/util/retry"
)

const (
	namespace = "informed"
	protobuf  = "application/vnd.kubernetes.protobuf"
	patience  = 30 * time.Second
)

func config() (*rest.Config, error) {
	return clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
}

// informers makes, changes and deletes objects with one client, and waits until shared informers have seen it.
func informers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*patience)
	defer cancel()
	cfg, err := config()
	if err != nil {
		return err
	}
	plain := rest.CopyConfig(cfg)
	cfg.ContentType = protobuf
	cfg.AcceptContentTypes = protobuf
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		run  func(context.Context, *kubernetes.Clientset, *rest.Config) error
	}{
		{"shared informers", sharedInformers}, {"pages", pages}, {"server-side apply", apply}, {"conflicts", conflicts},
		{"workloads", workloads}, {"subresources", subresources}, {"dynamic and metadata", loosely}, {"leader election", leads},
	} {
		if err := step.run(ctx, client, plain); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Println("passed:", step.name)
	}
	return client.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{})
}

// until is what an informer's cache is asked for again and again; it tells nobody of a state.
func until(ctx context.Context, what string, so func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !so() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s", what, patience)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func configMap(name, colour string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"colour": colour}},
		Data:       map[string]string{"colour": colour}, BinaryData: map[string][]byte{"raw": {0, 255, 7}},
	}
}

func sharedInformers(ctx context.Context, client *kubernetes.Clientset, _ *rest.Config) error {
	factory := kubeinformers.NewSharedInformerFactory(client, 0)
	red := kubeinformers.NewSharedInformerFactoryWithOptions(client, 0, kubeinformers.WithNamespace(namespace),
		kubeinformers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "colour=red" }))
	all, reds := factory.Core().V1().ConfigMaps(), red.Core().V1().ConfigMaps()
	counted := map[string]int{}
	counts := make(chan string, 64)
	if _, err := reds.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { counts <- "add" }, UpdateFunc: func(any, any) { counts <- "update" }, DeleteFunc: func(any) { counts <- "delete" },
	}); err != nil {
		return err
	}
	nodes, endpoints, roles := factory.Core().V1().Nodes(), factory.Discovery().V1().EndpointSlices(), factory.Rbac().V1().ClusterRoles()
	for _, informer := range []cache.SharedIndexInformer{all.Informer(), nodes.Informer(), endpoints.Informer(), roles.Informer()} {
		defer func() { _ = informer.IsStopped() }()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	factory.Start(ctx.Done())
	red.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("%v has not synced", kind)
		}
	}
	red.WaitForCacheSync(ctx.Done())
	if found, err := nodes.Lister().List(labels.Everything()); err != nil || len(found) == 0 {
		return fmt.Errorf("no nodes: %w", err)
	}
	maps := client.CoreV1().ConfigMaps(namespace)
	made, err := maps.Create(ctx, configMap("seen", "red"), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	get := func() *corev1.ConfigMap { found, _ := all.Lister().ConfigMaps(namespace).Get("seen"); return found }
	if err := until(ctx, "an add", func() bool { return get() != nil }); err != nil {
		return err
	}
	if seen := get(); seen.UID != made.UID || string(seen.BinaryData["raw"]) != "\x00\xff\x07" {
		return fmt.Errorf("what was seen is not what was made: %v", seen)
	}
	// It leaves the selector: a watch with one shows that as a deletion.
	if _, err := maps.Patch(ctx, "seen", types.MergePatchType, []byte(`{"metadata":{"labels":{"colour":"blue"}}}`), metav1.PatchOptions{}); err != nil {
		return err
	}
	if _, err := maps.Patch(ctx, "seen", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"colour":"red"}}}`), metav1.PatchOptions{}); err != nil {
		return err
	}
	if _, err := maps.Patch(ctx, "seen", types.JSONPatchType, []byte(`[{"op":"replace","path":"/data/colour","value":"crimson"}]`), metav1.PatchOptions{}); err != nil {
		return err
	}
	if err := maps.Delete(ctx, "seen", metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(made.UID))}); err != nil {
		return err
	}
	if err := until(ctx, "a deletion", func() bool { return get() == nil }); err != nil {
		return err
	}
	return until(ctx, "two adds, an update and two deletions under the selector", func() bool {
		for len(counts) > 0 {
			counted[<-counts]++
		}
		return counted["add"] == 2 && counted["update"] == 1 && counted["delete"] == 2
	})
}

func pages(ctx context.Context, client *kubernetes.Clientset, _ *rest.Config) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	for i := range 25 {
		if _, err := maps.Create(ctx, configMap(fmt.Sprintf("page-%02d", i), "white"), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	count := 0
	list := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return maps.List(ctx, o) })
	list.PageSize = 7
	if err := list.EachListItem(ctx, metav1.ListOptions{LabelSelector: "colour=white"}, func(runtime.Object) error { count++; return nil }); err != nil {
		return err
	}
	if count != 25 {
		return fmt.Errorf("%d of 25 in pages", count)
	}
	if err := maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "colour=white"}); err != nil {
		return err
	}
	left, err := maps.List(ctx, metav1.ListOptions{LabelSelector: "colour=white"})
	if err == nil && len(left.Items) > 0 {
		err = fmt.Errorf("%d left of a collection", len(left.Items))
	}
	return err
}

func apply(ctx context.Context, client *kubernetes.Clientset, _ *rest.Config) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	wanted := applycorev1.ConfigMap("applied", namespace).WithData(map[string]string{"colour": "red"})
	if _, err := maps.Apply(ctx, wanted, metav1.ApplyOptions{FieldManager: "one"}); err != nil {
		return err
	}
	other := applycorev1.ConfigMap("applied", namespace).WithData(map[string]string{"colour": "blue"})
	if _, err := maps.Apply(ctx, other, metav1.ApplyOptions{FieldManager: "two"}); !apierrors.IsConflict(err) {
		return fmt.Errorf("two managers of one field: %v", err)
	}
	applied, err := maps.Apply(ctx, other, metav1.ApplyOptions{FieldManager: "two", Force: true})
	if err != nil {
		return err
	}
	extracted, err := applycorev1.ExtractConfigMap(applied, "two")
	if err == nil && extracted.Data["colour"] != "blue" {
		err = fmt.Errorf("what the second manager has: %v", extracted)
	}
	return err
}

func conflicts(ctx context.Context, client *kubernetes.Clientset, _ *rest.Config) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	old, err := maps.Create(ctx, configMap("contended", "red"), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if _, err := maps.Create(ctx, configMap("contended", "red"), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("a second one: %v", err)
	}
	tries := 0
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		tries++
		if tries == 1 {
			newer := old.DeepCopy()
			newer.Data["colour"] = "green"
			if _, err := maps.Update(ctx, newer, metav1.UpdateOptions{}); err != nil {
				return err
			}
		} else if old, err = maps.Get(ctx, "contended", metav1.GetOptions{}); err != nil {
			return err
		}
		old.Data["colour"] = "blue"
		_, err := maps.Update(ctx, old, metav1.UpdateOptions{})
		if tries == 1 && !apierrors.IsConflict(err) {
			return fmt.Errorf("an old version was taken: %v", err)
		}
		return err
	})
}

func workloads(ctx context.Context, client *kubernetes.Clientset, _ *rest.Config) error {
	one, grace := int32(1), int64(1)
	label := map[string]string{"app": "w"}
	deployment := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "w"},
		Spec: appsv1.DeploymentSpec{Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: label}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: label},
			Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{
				{Name: "c", Image: "busybox", Command: []string{"sh", "-c", "echo hello from $HOSTNAME; sleep 1000"}}}},
		}},
	}
	deployments := client.AppsV1().Deployments(namespace)
	made, err := deployments.Create(ctx, deployment, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if made.Spec.Template.Spec.SchedulerName != "default-scheduler" || made.Spec.Strategy.RollingUpdate == nil {
		return fmt.Errorf("defaults are missing: %v", made.Spec)
	}
	if err := until(ctx, "an available replica", func() bool {
		made, err = deployments.Get(ctx, "w", metav1.GetOptions{})
		return err == nil && made.Status.AvailableReplicas == 1
	}); err != nil {
		return err
	}
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=w"})
	if err != nil || len(pods.Items) != 1 {
		return fmt.Errorf("%d pods: %w", len(pods.Items), err)
	}
	said, err := client.CoreV1().Pods(namespace).GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil || string(said) != "hello from "+pods.Items[0].Name+"\n" {
		return fmt.Errorf("the log says %q: %w", said, err)
	}
	background := metav1.DeletePropagationForeground
	if err := deployments.Delete(ctx, "w", metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		return err
	}
	return until(ctx, "a deletion in the foreground", func() bool {
		_, err := deployments.Get(ctx, "w", metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func subresources(ctx context.Context, client *kubernetes.Clientset, _ *rest.Config) error {
	accounts := client.CoreV1().ServiceAccounts(namespace)
	if _, err := accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	token, err := accounts.CreateToken(ctx, "robot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token.Status.Token}}
	review, err = client.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{})
	if err == nil && review.Status.User.Username != "system:serviceaccount:"+namespace+":robot" {
		err = fmt.Errorf("a token of %v", review.Status)
	}
	return err
}

func loosely(ctx context.Context, _ *kubernetes.Clientset, plain *rest.Config) error {
	loose, err := dynamic.NewForConfig(plain)
	if err != nil {
		return err
	}
	gvr := corev1.SchemeGroupVersion.WithResource("configmaps")
	factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(loose, 0, namespace, nil)
	informer := factory.ForResource(gvr)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if err := until(ctx, "a dynamic informer's object", func() bool {
		_, err := informer.Lister().ByNamespace(namespace).Get("applied")
		return err == nil
	}); err != nil {
		return err
	}
	meta, err := metadata.NewForConfig(plain)
	if err != nil {
		return err
	}
	partial, err := meta.Resource(gvr).Namespace(namespace).Get(ctx, "applied", metav1.GetOptions{})
	if err == nil && (partial.Name != "applied" || len(partial.ManagedFields) != 1) {
		err = fmt.Errorf("the metadata alone: %v", partial)
	}
	return err
}

func leads(ctx context.Context, client *kubernetes.Clientset, _ *rest.Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	led := make(chan struct{})
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Name: "lead", Namespace: namespace}, Client: client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: "me"},
	}
	go leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: 5 * time.Second, RenewDeadline: 3 * time.Second, RetryPeriod: time.Second, ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: func(context.Context) { close(led) }, OnStoppedLeading: func() {}},
	})
	select {
	case <-led:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("nobody leads")
	}
}
