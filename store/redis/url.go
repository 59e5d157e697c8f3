package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Target says where a shared store is and how it is reached. Of Options,
// Failover and ClusterOptions exactly one is set. It holds passwords: print it
// by String only.
type Target struct {
	Cluster        bool // ClusterOptions is the one that is set
	Options        *goredis.Options
	Failover       *goredis.FailoverOptions
	ClusterOptions *goredis.ClusterOptions

	// Sealer encrypts the entries; nil leaves them as they are. It comes from
	// the configuration, never from the URL.
	Sealer *Sealer
}

// readTimeout is what the URL says of how long an answer may take; 0 if nothing.
func (t *Target) readTimeout() time.Duration {
	switch {
	case t.Options != nil:
		return t.Options.ReadTimeout
	case t.Failover != nil:
		return t.Failover.ReadTimeout
	case t.ClusterOptions != nil:
		return t.ClusterOptions.ReadTimeout
	}
	return 0
}

// String returns the servers and the database, without user or password.
func (t *Target) String() string {
	switch {
	case t.Options != nil && t.Options.Network == "unix":
		return fmt.Sprintf("unix://%s?db=%d", t.Options.Addr, t.Options.DB)
	case t.Options != nil:
		return fmt.Sprintf("redis://%s/%d", t.Options.Addr, t.Options.DB)
	case t.Failover != nil:
		return fmt.Sprintf("redis+sentinel://%s/%d?master_name=%s", strings.Join(t.Failover.SentinelAddrs, ","), t.Failover.DB, t.Failover.MasterName)
	case t.ClusterOptions != nil:
		return "redis+cluster://" + strings.Join(t.ClusterOptions.Addrs, ",")
	}
	return "redis"
}

// Server names what the URL leads to: two targets with the same name are one store,
// however they are reached. Sentinels are named by all that the URL lists, so that
// two with one name for sure are one, and two with several names may be.
func (t *Target) Server() string {
	switch {
	case t.Options != nil:
		return t.Options.Network + " " + sameHost(t.Options.Addr) + " " + strconv.Itoa(t.Options.DB)
	case t.Failover != nil:
		return fmt.Sprintf("sentinel %s %s %d", sameHosts(t.Failover.SentinelAddrs), t.Failover.MasterName, t.Failover.DB)
	case t.ClusterOptions != nil:
		return "cluster " + sameHosts(t.ClusterOptions.Addrs)
	}
	return ""
}

func sameHosts(addrs []string) string {
	same := make([]string, len(addrs))
	for i, addr := range addrs {
		same[i] = sameHost(addr)
	}
	slices.Sort(same)
	return strings.Join(slices.Compact(same), ",")
}

// sameHost gives the machine itself one name.
func sameHost(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr // the path of a socket
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		host = "localhost"
	}
	return net.JoinHostPort(strings.ToLower(host), port)
}

// topology is the kind of installation that a URL's scheme names.
type topology uint8

const (
	single topology = 1 << iota
	socket
	sentinel
	cluster

	anywhere = single | socket | sentinel | cluster
)

type scheme struct {
	topology topology
	tls      bool
	port     string // where the URL names none
}

var schemes = map[string]scheme{
	"redis":           {single, false, "6379"},
	"rediss":          {single, true, "6379"},
	"unix":            {socket, false, ""},
	"redis+sentinel":  {sentinel, false, "26379"},
	"rediss+sentinel": {sentinel, true, "26379"},
	"redis+cluster":   {cluster, false, "6379"},
	"rediss+cluster":  {cluster, true, "6379"},
}

// ParseURL reads the URL of a Redis:
//
//	redis://user:password@host:port/db          one server; or redis://host?db=0
//	unix://user:password@/path/to/socket?db=0   one server, by a socket
//	redis+sentinel://user:password@host:port/db?master_name=…&addr=host:port
//	redis+cluster://user:password@host:port?addr=host:port
//
// rediss instead of redis is TLS. User and password, percent-encoded, are those
// of the Redis servers; Sentinels have sentinel_username and sentinel_password.
// addr names a further Sentinel or node and may be repeated.
//
// For TLS there are tls_ca (file of certificates to trust instead of the
// system's), tls_cert and tls_key (files, for a client certificate),
// tls_server_name (what the certificates must be for; by default the address
// that each server is dialled at) and skip_verify. The files are read once, here.
//
// The other parameters are go-redis' own: dial_timeout, read_timeout,
// write_timeout, pool_timeout, conn_max_idle_time, conn_max_lifetime and
// conn_max_lifetime_jitter (a duration, or seconds), pool_size, min_idle_conns,
// max_idle_conns, max_active_conns, max_concurrent_dials, pool_fifo and
// client_name. A round trip may take the read_timeout, 250ms if there is none, and so may
// what the other time-outs are of unless they are set. What the driver has chosen, such
// as protocol=2, may be there and must say that.
//
// Nothing is dialled. An error names the part that is wrong and holds neither
// the URL nor a value of it, other than the path of a file.
func ParseURL(text string) (*Target, error) {
	u, err := url.Parse(text)
	if err != nil {
		// url's own error quotes the URL, and so the password.
		return nil, errEncoding
	}
	s, ok := schemes[u.Scheme]
	if !ok {
		known := slices.Sorted(maps.Keys(schemes))
		return nil, fmt.Errorf("cachedpg: cache_store: the URL's scheme is none of %s", strings.Join(known, ", "))
	}
	if u.Opaque != "" || u.Fragment != "" || u.User == nil && strings.Contains(u.Path+u.RawQuery, "@") {
		// The rest of a password with a raw / ? or # in it: do not go on and
		// call it a database or a parameter.
		return nil, errEncoding
	}
	p, err := parseQuery(u, s)
	if err != nil {
		return nil, err
	}
	addrs, db, err := p.where(u, s)
	if err != nil {
		return nil, err
	}
	config, err := p.tls(s)
	if err != nil {
		return nil, err
	}
	password, _ := u.User.Password()
	t, err := p.target(s, addrs, db, config)
	if err != nil {
		return nil, err
	}
	t.setUser(u.User.Username(), password)
	return t, nil
}

var errEncoding = errors.New("cachedpg: cache_store: not a URL; special characters in user and password must be percent-encoded")

func wrong(name, format string, args ...any) error {
	return fmt.Errorf("cachedpg: cache_store: "+name+": "+format, args...)
}

// query is a URL's parameters, checked.
type query struct {
	client url.Values // for go-redis
	own    url.Values // for us
}

func (q query) get(name string) string { return q.own.Get(name) }

// speakable is a name that is a misspelt parameter rather than a piece of a
// password.
var speakable = regexp.MustCompile(`^[a-z]{1,16}(_[a-z]{1,16}){0,3}$`)

func parseQuery(u *url.URL, s scheme) (query, error) {
	q := query{url.Values{}, url.Values{}}
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return q, errEncoding
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		p, ok := parameters[name]
		switch {
		case !ok && speakable.MatchString(name):
			return q, wrong(name, "unknown parameter of the URL")
		case !ok:
			return q, errEncoding
		case p.where&s.topology == 0:
			return q, wrong(name, "has no meaning for %s://", u.Scheme)
		case p.tls && !s.tls:
			return q, wrong(name, "is for TLS: the URL must begin with rediss")
		case len(values[name]) > 1 && name != "addr":
			return q, wrong(name, "is there twice")
		}
		for _, value := range values[name] {
			canonical, err := p.check(value)
			if err != nil {
				return q, wrong(name, "%w", err)
			}
			if p.own {
				q.own.Add(name, canonical)
			} else {
				q.client.Set(name, canonical)
			}
		}
	}
	return q, nil
}

// where returns the addresses, with ports, and the number of the database.
func (q query) where(u *url.URL, s scheme) (addrs []string, db int, err error) {
	if s.topology == socket {
		if u.Host != "" || strings.Trim(u.Path, "/") == "" {
			return nil, 0, errors.New("cachedpg: cache_store: unix:// needs the path of a socket and no host")
		}
		db, _ = strconv.Atoi(q.get("db")) // checked; empty is 0
		return []string{u.Path}, db, nil
	}
	first, err := address(u.Host, s.port)
	if err != nil {
		return nil, 0, fmt.Errorf("cachedpg: cache_store: %w", err)
	}
	addrs = append(addrs, first)
	for _, addr := range q.own["addr"] {
		addr, err := address(addr, s.port)
		if err != nil {
			return nil, 0, wrong("addr", "%w", err)
		}
		addrs = append(addrs, addr)
	}
	if path := strings.Trim(u.Path, "/"); path != "" {
		if path, err = number(0)(path); err != nil {
			return nil, 0, fmt.Errorf("cachedpg: cache_store: the path is the number of a database: %w", err)
		}
		if other := q.get("db"); other != "" && other != path {
			return nil, 0, wrong("db", "contradicts the path")
		}
		db, _ = strconv.Atoi(path)
	} else {
		db, _ = strconv.Atoi(q.get("db"))
	}
	if s.topology == cluster && db != 0 {
		return nil, 0, errors.New("cachedpg: cache_store: a Cluster has only database 0")
	}
	return addrs, db, nil
}

// address completes host:port, of which both are optional; an IPv6 address is
// in brackets.
func address(addr, port string) (string, error) {
	host := addr
	if h, p, err := net.SplitHostPort(addr); err == nil {
		host, port = h, p
	} else if bare, ok := strings.CutPrefix(addr, "["); ok && strings.HasSuffix(bare, "]") {
		host = strings.TrimSuffix(bare, "]")
	} else if strings.Contains(addr, ":") {
		return "", errors.New("want host:port")
	}
	if host == "" {
		host = "localhost"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", errors.New("a port is between 1 and 65535")
	}
	return net.JoinHostPort(host, port), nil
}

// tls returns nil for a scheme without it. ServerName stays empty unless it is
// given: it is then, for each server, the address that is dialled.
func (q query) tls(s scheme) (*tls.Config, error) {
	if !s.tls {
		return nil, nil
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         q.get("tls_server_name"),
		InsecureSkipVerify: q.get("skip_verify") == "true",
	}
	if path := q.get("tls_ca"); path != "" {
		if config.InsecureSkipVerify {
			return nil, wrong("tls_ca", "contradicts skip_verify")
		}
		pem, err := os.ReadFile(path)
		if err != nil {
			return nil, wrong("tls_ca", "%w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, wrong("tls_ca", "%s holds no PEM certificate", path)
		}
	}
	cert, key := q.get("tls_cert"), q.get("tls_key")
	if (cert == "") != (key == "") {
		return nil, wrong("tls_cert", "tls_cert and tls_key go together")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, wrong("tls_cert", "%w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// target has go-redis read its own parameters and sets the rest.
//
// Retries are off: the caller decides, and a script must not run twice by
// itself. RESP2, because RESP3 looks for push messages around every command and
// we use none; for the same reason no notifications of maintenance, which are
// another round trip at connect. Nor does the client introduce itself by CLIENT
// SETINFO, one more.
func (q query) target(s scheme, addrs []string, db int, config *tls.Config) (*Target, error) {
	const protocol, noRetry, once = 2, -1, 1
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	clean := "redis://localhost?" + q.client.Encode()
	switch s.topology {
	case cluster:
		o, err := goredis.ParseClusterURL(clean)
		if err != nil {
			return nil, fmt.Errorf("cachedpg: cache_store: %w", err)
		}
		o.Addrs, o.TLSConfig = addrs, config
		o.Protocol, o.MaxRetries, o.MaxRedirects, o.DialerRetries = protocol, noRetry, noRetry, once
		o.ContextTimeoutEnabled, o.DisableIdentity, o.MaintNotificationsConfig = true, true, quiet
		return &Target{Cluster: true, ClusterOptions: o}, nil
	case sentinel:
		if q.get("master_name") == "" {
			return nil, wrong("master_name", "a URL with +sentinel needs it")
		}
		o, err := goredis.ParseFailoverURL(clean)
		if err != nil {
			return nil, fmt.Errorf("cachedpg: cache_store: %w", err)
		}
		o.SentinelAddrs, o.DB, o.TLSConfig, o.MasterName = addrs, db, config, q.get("master_name")
		o.SentinelUsername, o.SentinelPassword = q.get("sentinel_username"), q.get("sentinel_password")
		o.Protocol, o.MaxRetries, o.DialerRetries = protocol, noRetry, once
		o.ContextTimeoutEnabled, o.DisableIdentity = true, true
		return &Target{Failover: o}, nil
	}
	o, err := goredis.ParseURL(clean)
	if err != nil {
		return nil, fmt.Errorf("cachedpg: cache_store: %w", err)
	}
	o.Addr, o.DB, o.TLSConfig = addrs[0], db, config
	if s.topology == socket {
		o.Network = "unix"
	}
	o.Protocol, o.MaxRetries, o.DialerRetries = protocol, noRetry, once
	o.ContextTimeoutEnabled, o.DisableIdentity, o.MaintNotificationsConfig = true, true, quiet
	return &Target{Options: o}, nil
}

func (t *Target) setUser(user, password string) {
	switch {
	case t.Options != nil:
		t.Options.Username, t.Options.Password = user, password
	case t.Failover != nil:
		t.Failover.Username, t.Failover.Password = user, password
	case t.ClusterOptions != nil:
		t.ClusterOptions.Username, t.ClusterOptions.Password = user, password
	}
}
