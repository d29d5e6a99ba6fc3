// Command strict reads Kubernetes manifests from standard input and decodes each into the type that its
// kind has, refusing fields there are not. It is a module of its own: the server knows nothing of
// Kubernetes.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var kinds = map[string]func() any{
	"apps/v1 StatefulSet":                func() any { return new(appsv1.StatefulSet) },
	"v1 ConfigMap":                       func() any { return new(corev1.ConfigMap) },
	"v1 Service":                         func() any { return new(corev1.Service) },
	"networking.k8s.io/v1 NetworkPolicy": func() any { return new(networkingv1.NetworkPolicy) },
	"policy/v1 PodDisruptionBudget":      func() any { return new(policyv1.PodDisruptionBudget) },
}

func main() {
	all, err := io.ReadAll(os.Stdin)
	n := 0
	for _, doc := range bytes.Split(all, []byte("\n---")) {
		if err != nil {
			break
		}
		if strings.TrimSpace(string(doc)) == "" {
			continue
		}
		var t metav1.TypeMeta
		if err = yaml.Unmarshal(doc, &t); err != nil {
			break
		}
		make, ok := kinds[t.APIVersion+" "+t.Kind]
		if !ok {
			err = fmt.Errorf("%s %s is not known here", t.APIVersion, t.Kind)
			break
		}
		if err = yaml.UnmarshalStrict(doc, make()); err != nil {
			err = fmt.Errorf("%s: %w", t.Kind, err)
		}
		n++
	}
	if err == nil && n == 0 {
		err = fmt.Errorf("no manifest")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "strict:", err)
		os.Exit(1)
	}
	fmt.Println(n, "manifests are well-formed")
}
