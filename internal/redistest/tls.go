//go:build unix

package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certificates are the files of a CA, made for one test, and of what it signed.
type Certificates struct {
	CA                    string
	ServerCert, ServerKey string // for 127.0.0.1 and localhost
	ClientCert, ClientKey string
	pool                  *x509.CertPool
	client                tls.Certificate
}

// TLS starts a server that speaks TLS alone, with certificates of its own. A
// client's certificate is checked if there is one; "--tls-auth-clients", "yes"
// demands it.
func TLS(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return TLSWith(tb, NewCertificates(tb), args...)
}

// TLSWith is TLS with certificates that exist.
func TLSWith(tb testing.TB, certs *Certificates, args ...string) *Server {
	tb.Helper()
	return start(tb, certs, args)
}

// Certificates returns the files that belong to the server, nil without TLS.
func (s *Server) Certificates() *Certificates { return s.certs }

func (s *Server) urlOf(addr string) string {
	u := url.URL{Scheme: "redis", Host: addr, Path: "/0"}
	if s.password != "" {
		u.User = url.UserPassword("", s.password)
	}
	if s.certs != nil {
		u.Scheme = "rediss"
		u.RawQuery = url.Values{"tls_ca": {s.certs.CA}}.Encode()
	}
	return u.String()
}

// NewCertificates makes a CA and what it signs; they are valid for a day.
func NewCertificates(tb testing.TB) *Certificates {
	tb.Helper()
	dir := tb.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	c := &Certificates{
		CA:         file("ca.crt"),
		ServerCert: file("server.crt"), ServerKey: file("server.key"),
		ClientCert: file("client.crt"), ClientKey: file("client.key"),
		pool: x509.NewCertPool(),
	}
	ca := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	caKey := sign(tb, ca, nil, nil, c.CA, "")
	c.pool.AddCert(ca)
	sign(tb, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "test server"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		// A server is a client too, of the one it replicates.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, ca, caKey, c.ServerCert, c.ServerKey)
	sign(tb, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "test client"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, caKey, c.ClientCert, c.ClientKey)
	var err error
	if c.client, err = tls.LoadX509KeyPair(c.ClientCert, c.ClientKey); err != nil {
		tb.Fatal(err)
	}
	return c
}

// sign completes a certificate, signs it by parent, or itself, and writes it
// and, if there is a file for it, its new key.
func sign(tb testing.TB, c, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, certFile, keyFile string) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	if parent == nil {
		parent, parentKey = c, key
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		tb.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	*c = *signed
	writePEM(tb, certFile, "CERTIFICATE", der)
	if keyFile != "" {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			tb.Fatal(err)
		}
		writePEM(tb, keyFile, "PRIVATE KEY", der)
	}
	return key
}

func writePEM(tb testing.TB, path, kind string, der []byte) {
	tb.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		tb.Fatal(err)
	}
}
