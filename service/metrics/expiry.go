package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var certExpiryDesc = prometheus.NewDesc(namespace+"_tls_cert_expiry_seconds",
	"Seconds until the first of the certificates of listeners expires; below 0 when it has.", nil, nil)

// certExpiry is the series of what is asked at each scrape for the end of a certificate.
type certExpiry struct {
	mu   sync.Mutex
	ends []func() time.Time
}

// CertExpiry adds a certificate to rtcd_tls_cert_expiry_seconds, which is of the one that ends
// first. The end is asked for at each scrape.
func (m *Metrics) CertExpiry(end func() time.Time) {
	m.certs.mu.Lock()
	defer m.certs.mu.Unlock()
	m.certs.ends = append(m.certs.ends, end)
}

// Describe implements prometheus.Collector.
func (c *certExpiry) Describe(ch chan<- *prometheus.Desc) { ch <- certExpiryDesc }

// Collect implements prometheus.Collector.
func (c *certExpiry) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	ends := c.ends
	c.mu.Unlock()
	if len(ends) == 0 {
		return
	}
	first := ends[0]()
	for _, end := range ends[1:] {
		if t := end(); t.Before(first) {
			first = t
		}
	}
	ch <- prometheus.MustNewConstMetric(certExpiryDesc, prometheus.GaugeValue, time.Until(first).Seconds())
}
