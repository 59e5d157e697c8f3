package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/cachedpg/cachedpg/internal/redistest"
	"github.com/cachedpg/cachedpg/invalidation"
	"github.com/cachedpg/cachedpg/store"
)

func TestConfigurationsThatAreRefused(t *testing.T) {
	good := Config{Brokers: []string{"localhost:9092"}, Topic: "x"}
	with := func(change func(*Config)) Config {
		c := good
		change(&c)
		return c
	}
	tests := []struct {
		name   string
		config Config
		want   string
	}{
		{"nothing", Config{}, "Brokers is empty"},
		{"no topic", with(func(c *Config) { c.Topic = "" }), "Topic is empty"},
		{"a URL", with(func(c *Config) { c.Brokers = []string{"kafka://localhost"} }), "without a scheme"},
		{"an empty address", with(func(c *Config) { c.Brokers = []string{""} }), "no address"},
		{"a negative timeout", with(func(c *Config) { c.Timeout = -time.Second }), "Timeout=-1s: must be positive"},
		{"a mechanism", with(func(c *Config) { c.User, c.Mechanism = "u", "gssapi" }), "scram-sha-512"},
		{"a password without a user", with(func(c *Config) { c.Password = "secret" }), "User is empty"},
	}
	for _, tt := range tests {
		_, err := NewProducer(tt.config)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "cachedpg: kafka: ") {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", tt.name, err)
		}
	}
}

func TestLoginsAndTLS(t *testing.T) {
	t.Parallel()
	certificates := redistest.NewCertificates(t)
	pair, err := tls.LoadX509KeyPair(certificates.ServerCert, certificates.ServerKey)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(certificates.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	event := invalidation.Event{Source: "7/00000001/5", Tags: []store.Tag{{Kind: store.TagSchema}}}
	for name, mechanism := range map[string]string{Plain: "PLAIN", "": "SCRAM-SHA-256", ScramSHA256: "SCRAM-SHA-256", ScramSHA512: "SCRAM-SHA-512"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t, 1, kfake.EnableSASL(), kfake.Superuser(mechanism, "ann", "secret"),
				kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}}))
			c := configOf(cluster)
			c.TLS, c.User, c.Password, c.Mechanism = &tls.Config{RootCAs: pool}, "ann", "secret", name
			p := producer(t, c)
			if err := p.Check(t.Context()); err != nil {
				t.Fatal(err)
			}
			send(t, p, event)

			for what, tt := range map[string]struct {
				change func(*Config)
				want   string
			}{
				"a wrong password": {func(c *Config) { c.Password = "secret2" }, "check User, Password and Mechanism"},
				"no TLS":           {func(c *Config) { c.TLS = nil }, "does it ask for TLS"},
				"an unknown CA":    {func(c *Config) { c.TLS = &tls.Config{} }, "check the certificates"},
				"no login":         {func(c *Config) { c.User, c.Password, c.Mechanism = "", "", "" }, "SASL"},
			} {
				bad := c
				bad.Timeout = time.Second
				tt.change(&bad)
				p := producer(t, bad)
				for call, err := range map[string]error{"Check": p.Check(t.Context()), "Send": p.Send(t.Context(), []invalidation.Event{event})} {
					if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
						t.Errorf("%s, %s: got %v, want %q", what, call, err, tt.want)
					}
				}
			}
		})
	}
}

func TestThePasswordIsNotPrinted(t *testing.T) {
	t.Parallel()
	config := Config{Topic: "t", User: "u", Password: "s3cret"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, value := range []any{config, &config, []Config{config}} {
			if got := fmt.Sprintf(verb, value); strings.Contains(got, "s3cret") {
				t.Errorf("%s prints %s", verb, got)
			}
		}
	}
}
