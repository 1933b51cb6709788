package main

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const finalizer = "clients.example.com/goodbye"

// Sign is what the operator looks after: its text stands in a ConfigMap of the same name.
type Sign struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              SignSpec   `json:"spec,omitempty"`
	Status            SignStatus `json:"status,omitempty"`
}

type SignSpec struct {
	Text   string `json:"text"`
	Copies int32  `json:"copies,omitempty"`
}

type SignStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Shown              string             `json:"shown,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

type SignList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Sign `json:"items"`
}

func (s *Sign) DeepCopyObject() runtime.Object {
	out := *s
	s.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Status.Conditions = append([]metav1.Condition(nil), s.Status.Conditions...)
	return &out
}

func (l *SignList) DeepCopyObject() runtime.Object {
	out := *l
	out.Items = make([]Sign, len(l.Items))
	for i := range l.Items {
		out.Items[i] = *l.Items[i].DeepCopyObject().(*Sign)
	}
	return &out
}

type signs struct {
	client.Client
	scheme *runtime.Scheme
}

func operator(ctx context.Context) error {
	ctrl.SetLogger(logr.Discard())
	cfg, err := config()
	if err != nil {
		return err
	}
	gv := schema.GroupVersion{Group: "clients.example.com", Version: "v1"}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	scheme.AddKnownTypes(gv, &Sign{}, &SignList{})
	metav1.AddToGroupVersion(scheme, gv)
	manager, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, LeaderElection: true, LeaderElectionID: "signs.clients.example.com",
		LeaderElectionNamespace: "default", LeaderElectionReleaseOnCancel: true,
	})
	if err != nil {
		return err
	}
	if err := manager.GetFieldIndexer().IndexField(ctx, &Sign{}, "spec.text", func(o client.Object) []string { return []string{o.(*Sign).Spec.Text} }); err != nil {
		return err
	}
	err = ctrl.NewControllerManagedBy(manager).For(&Sign{}).Owns(&corev1.ConfigMap{}).Complete(&signs{manager.GetClient(), scheme})
	if err != nil {
		return err
	}
	fmt.Println("starting")
	return manager.Start(ctx)
}

func (r *signs) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var sign Sign
	if err := r.Get(ctx, request.NamespacedName, &sign); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !sign.DeletionTimestamp.IsZero() {
		goodbye := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: sign.Name + "-was-here", Namespace: sign.Namespace}}
		if err := r.Create(ctx, goodbye); err != nil && !apierrors.IsAlreadyExists(err) {
			return ctrl.Result{}, err
		}
		if controllerutil.RemoveFinalizer(&sign, finalizer) {
			return ctrl.Result{}, r.Update(ctx, &sign)
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(&sign, finalizer) {
		if err := r.Update(ctx, &sign); err != nil {
			return ctrl.Result{}, err
		}
	}
	shown := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: sign.Name, Namespace: sign.Namespace}}
	if _, err := controllerutil.CreateOrUpdate(ctx, r.Client, shown, func() error {
		shown.Data = map[string]string{"text": sign.Spec.Text, "copies": fmt.Sprint(sign.Spec.Copies)}
		return controllerutil.SetControllerReference(&sign, shown, r.scheme)
	}); err != nil {
		return ctrl.Result{}, err
	}
	before := sign.DeepCopyObject().(*Sign)
	sign.Status.Shown, sign.Status.ObservedGeneration = sign.Spec.Text, sign.Generation
	meta.SetStatusCondition(&sign.Status.Conditions, metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Reason: "Shown", ObservedGeneration: sign.Generation})
	return ctrl.Result{}, r.Status().Patch(ctx, &sign, client.MergeFrom(before))
}
