package redis

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/cachedpg/cachedpg/internal/redistest"
)

func mustParse(t *testing.T, url string) *Target {
	t.Helper()
	target, err := ParseURL(url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return target
}

func TestParseURLSingle(t *testing.T) {
	tests := []struct {
		url                           string
		network, addr, user, password string
		db                            int
	}{
		{"redis://", "tcp", "localhost:6379", "", "", 0},
		{"redis://h", "tcp", "h:6379", "", "", 0},
		{"redis://h/", "tcp", "h:6379", "", "", 0},
		{"redis://:7000/2", "tcp", "localhost:7000", "", "", 2},
		{"redis://[::1]", "tcp", "[::1]:6379", "", "", 0},
		{"redis://[::1]:7000", "tcp", "[::1]:7000", "", "", 0},
		{"redis://:p%40ss%2Fword@h:7000/15", "tcp", "h:7000", "", "p@ss/word", 15},
		{"redis://us%3Aer:p@h", "tcp", "h:6379", "us:er", "p", 0},
		{"unix:///run/redis/sock?db=3", "unix", "/run/redis/sock", "", "", 3},
		{"unix://user:p@/run/redis.sock", "unix", "/run/redis.sock", "user", "p", 0},
		{"rediss://h:7000", "tcp", "h:7000", "", "", 0},
	}
	for _, tt := range tests {
		target := mustParse(t, tt.url)
		o := target.Options
		if o == nil || target.Cluster || target.Failover != nil || target.ClusterOptions != nil {
			t.Errorf("%s: is no single server: %+v", tt.url, target)
			continue
		}
		if o.Network != tt.network || o.Addr != tt.addr || o.Username != tt.user || o.Password != tt.password || o.DB != tt.db {
			t.Errorf("%s: got %s %s, user %q, password %q, db %d", tt.url, o.Network, o.Addr, o.Username, o.Password, o.DB)
		}
		if withTLS := strings.HasPrefix(tt.url, "rediss"); withTLS != (o.TLSConfig != nil) {
			t.Errorf("%s: TLS %v", tt.url, o.TLSConfig != nil)
		}
	}
}

func TestParseURLSentinel(t *testing.T) {
	target := mustParse(t, "rediss+sentinel://user:p@one/4?master_name=m&addr=two:7000&addr=three&sentinel_username=su&sentinel_password=sp%40")
	o := target.Failover
	if o == nil || target.Cluster || target.Options != nil || target.ClusterOptions != nil {
		t.Fatalf("no Sentinel: %+v", target)
	}
	if want := []string{"one:26379", "two:7000", "three:26379"}; !slices.Equal(o.SentinelAddrs, want) {
		t.Errorf("Sentinels %q, want %q", o.SentinelAddrs, want)
	}
	if o.MasterName != "m" || o.Username != "user" || o.Password != "p" || o.DB != 4 || o.SentinelUsername != "su" || o.SentinelPassword != "sp@" {
		t.Errorf("got %+v", o)
	}
	if o.TLSConfig == nil || o.TLSConfig.ServerName != "" {
		t.Errorf("TLS %+v: want a server name for each server", o.TLSConfig)
	}
}

func TestParseURLCluster(t *testing.T) {
	target := mustParse(t, "redis+cluster://user:p@one:7000/0?addr=two&addr=[::1]:7002")
	o := target.ClusterOptions
	if o == nil || !target.Cluster || target.Options != nil || target.Failover != nil {
		t.Fatalf("no Cluster: %+v", target)
	}
	if want := []string{"one:7000", "two:6379", "[::1]:7002"}; !slices.Equal(o.Addrs, want) {
		t.Errorf("nodes %q, want %q", o.Addrs, want)
	}
	if o.Username != "user" || o.Password != "p" || o.TLSConfig != nil {
		t.Errorf("got %+v", o)
	}
}

// The same parameters reach go-redis whatever the installation, and so do the
// defaults of a cache.
func TestParseURLParameters(t *testing.T) {
	const parameters = "dial_timeout=1&read_timeout=20ms&write_timeout=30ms&pool_timeout=40ms&pool_fifo=1&pool_size=7&min_idle_conns=1&max_idle_conns=5" +
		"&max_active_conns=9&max_concurrent_dials=3&conn_max_idle_time=0&conn_max_lifetime=10m&conn_max_lifetime_jitter=60&client_name=a+name"
	type settings struct {
		dial, read, write, pool, idle, lifetime, jitter time.Duration
		fifo, context, anonymous                        bool
		size, minIdle, maxIdle, active, dials           int
		name                                            string
		protocol, retries, dialerRetries                int
	}
	want := settings{
		time.Second, 20 * time.Millisecond, 30 * time.Millisecond, 40 * time.Millisecond, -1, 10 * time.Minute, time.Minute,
		true, true, true, 7, 1, 5, 9, 3, "a name", 2, -1, 1,
	}
	one := mustParse(t, "redis://h?"+parameters).Options
	failover := mustParse(t, "redis+sentinel://h?master_name=m&"+parameters).Failover
	cluster := mustParse(t, "redis+cluster://h?"+parameters).ClusterOptions
	for name, got := range map[string]settings{
		"single": {
			one.DialTimeout, one.ReadTimeout, one.WriteTimeout, one.PoolTimeout, one.ConnMaxIdleTime, one.ConnMaxLifetime, one.ConnMaxLifetimeJitter,
			one.PoolFIFO, one.ContextTimeoutEnabled, one.DisableIdentity,
			one.PoolSize, one.MinIdleConns, one.MaxIdleConns, one.MaxActiveConns, one.MaxConcurrentDials, one.ClientName,
			one.Protocol, one.MaxRetries, one.DialerRetries,
		},
		"sentinel": {
			failover.DialTimeout, failover.ReadTimeout, failover.WriteTimeout, failover.PoolTimeout, failover.ConnMaxIdleTime, failover.ConnMaxLifetime, failover.ConnMaxLifetimeJitter,
			failover.PoolFIFO, failover.ContextTimeoutEnabled, failover.DisableIdentity,
			failover.PoolSize, failover.MinIdleConns, failover.MaxIdleConns, failover.MaxActiveConns, failover.MaxConcurrentDials, failover.ClientName,
			failover.Protocol, failover.MaxRetries, failover.DialerRetries,
		},
		"cluster": {
			cluster.DialTimeout, cluster.ReadTimeout, cluster.WriteTimeout, cluster.PoolTimeout, cluster.ConnMaxIdleTime, cluster.ConnMaxLifetime, cluster.ConnMaxLifetimeJitter,
			cluster.PoolFIFO, cluster.ContextTimeoutEnabled, cluster.DisableIdentity,
			cluster.PoolSize, cluster.MinIdleConns, cluster.MaxIdleConns, cluster.MaxActiveConns, cluster.MaxConcurrentDials, cluster.ClientName,
			cluster.Protocol, cluster.MaxRetries, cluster.DialerRetries,
		},
	} {
		if got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	if cluster.MaxRedirects != -1 {
		t.Errorf("a Cluster is redirected %d times", cluster.MaxRedirects)
	}
	for name, config := range map[string]*maintnotifications.Config{"single": one.MaintNotificationsConfig, "cluster": cluster.MaintNotificationsConfig} {
		if config == nil || config.Mode != maintnotifications.ModeDisabled {
			t.Errorf("%s: notifications of maintenance %+v", name, config)
		}
	}
	for text, want := range map[string]time.Duration{
		"redis://h": 250 * time.Millisecond, "redis://h?read_timeout=3s": 3 * time.Second,
		"redis+sentinel://h?master_name=m&read_timeout=3s": 3 * time.Second, "redis+cluster://h?read_timeout=3s": 3 * time.Second,
	} {
		s := Open(mustParse(t, text), Options{})
		if s.timeout != want {
			t.Errorf("%s: a round trip may take %s, want %s", text, s.timeout, want)
		}
		s.Close()
	}
	if plain := mustParse(t, "redis://h").Options; plain.ReadTimeout != 0 || plain.DialTimeout != 0 {
		t.Errorf("time-outs that the URL does not set: %+v", plain)
	}
}

// A URL of another program's with go-redis may say what the driver does in any case.
func TestParseURLTakesWhatIsChosenAnyway(t *testing.T) {
	for _, text := range []string{
		"redis://h/3?protocol=2", "redis://h?db=3&max_retries=-1", "redis://h/3?db=3&context_timeout_enabled=1&dialer_retries=1",
		"redis+sentinel://h?master_name=m&db=3&protocol=2&replica_only=false&route_randomly=0",
	} {
		target := mustParse(t, text)
		protocol, db := 0, 0
		if o := target.Options; o != nil {
			protocol, db = o.Protocol, o.DB
		} else {
			protocol, db = target.Failover.Protocol, target.Failover.DB
		}
		if protocol != 2 || db != 3 {
			t.Errorf("%s: RESP%d, database %d", text, protocol, db)
		}
	}
	cluster := mustParse(t, "redis+cluster://h?protocol=2&read_only=false&max_redirects=-1").ClusterOptions
	if cluster.Protocol != 2 || cluster.ReadOnly || cluster.MaxRedirects != -1 {
		t.Errorf("got %+v", cluster)
	}
	old := mustParse(t, "redis://h?idle_timeout=90&max_conn_age=1h").Options
	if old.ConnMaxIdleTime != 90*time.Second || old.ConnMaxLifetime != time.Hour {
		t.Errorf("older names: %v, %v", old.ConnMaxIdleTime, old.ConnMaxLifetime)
	}
}

func TestParseURLErrors(t *testing.T) {
	certs := redistest.NewCertificates(t)
	tests := []struct{ url, want string }{
		{"", "scheme"},
		{"localhost:6379", "scheme"},
		{"redsi://h", "scheme"},
		{"redis:h", "not a URL"},
		{"redis://h/#frag", "not a URL"},
		{"redis://h/one", "the number of a database"},
		{"redis://h/1/2", "the number of a database"},
		{"redis://h/-1", "the number of a database"},
		{"redis://h:0", "between 1 and 65535"},
		{"redis://h:65536", "between 1 and 65535"},
		{"redis://h:hunter2", "not a URL"},
		{"redis://h?poolsize=1", "poolsize: unknown"},
		{"redis://h?max_retries=3", "max_retries: is the driver's to choose, want -1"},
		{"redis://h?protocol=3", "protocol: is the driver's to choose, want 2 or nothing"},
		{"redis+cluster://h?read_only=true", "read_only: is the driver's to choose"},
		{"redis+sentinel://h?master_name=m&replica_only=true", "replica_only: is the driver's to choose"},
		{"redis://h/1?db=2", "db: contradicts the path"},
		{"redis+cluster://h?db=0", "db: has no meaning"},
		{"redis://h?pool_size=hunter2", "pool_size: want a number"},
		{"redis://h?pool_size=0", "pool_size: want a number between 1"},
		{"redis://h?pool_size=", "pool_size: want a number"},
		{"redis://h?pool_size=1&pool_size=2", "pool_size: is there twice"},
		{"redis://h?read_timeout=hunter2", "read_timeout: want a positive duration"},
		{"redis://h?read_timeout=0", "read_timeout: want a positive duration"},
		{"redis://h?read_timeout=-1s", "read_timeout: want a positive duration"},
		{"redis://h?conn_max_lifetime=hunter2", "conn_max_lifetime: want a duration"},
		{"redis://h?pool_fifo=hunter2", "pool_fifo: want true or false"},
		{"redis://h?client_name=", "client_name: is empty"},
		{"redis://h?addr=h2:1", "addr: has no meaning"},
		{"redis+sentinel://h", "master_name: a URL with +sentinel needs it"},
		{"redis+cluster://h/1", "only database 0"},
		{"redis+cluster://h?addr=h2:hunter2", "addr: a port is between"},
		{"redis+cluster://h?addr=h2:1:2", "addr: want host:port"},
		{"redis+cluster://h?addr=h2:99999", "addr: a port is between"},
		{"redis+cluster://h?addr=::1", "addr: want host:port"},
		{"unix://", "path of a socket"},
		{"unix://host/path", "path of a socket"},
		{"redis://h?tls_ca=x", "tls_ca: is for TLS"},
		{"unix:///s?skip_verify=true", "skip_verify: is for TLS"},
		{"rediss://h?tls_ca=/does/not/exist", "tls_ca: open /does/not/exist"},
		{"rediss://h?tls_ca=" + certs.ServerKey, "holds no PEM certificate"},
		{"rediss://h?skip_verify=true&tls_ca=" + certs.CA, "tls_ca: contradicts skip_verify"},
		{"rediss://h?tls_cert=" + certs.ClientCert, "tls_cert and tls_key go together"},
		{"rediss://h?tls_key=" + certs.ClientKey, "tls_cert and tls_key go together"},
		{"rediss://h?tls_cert=" + certs.ClientCert + "&tls_key=" + certs.ServerKey, "tls_cert: "},

		// Passwords that were not encoded.
		{"redis://:hun/ter2@h", "percent-encoded"},
		{"redis://user:7/hunter2@h", "percent-encoded"},
		{"redis://user:7?hunter2@h", "percent-encoded"},
		{"redis://user:7#hunter2@h", "percent-encoded"},
		{"redis://:hun%ter2@h", "percent-encoded"},
		{"redis://:hunter2[@h", "percent-encoded"},
		{"redis://h?hunter2%ZZ", "percent-encoded"},
		{"redis://h?hun-ter2=1", "percent-encoded"},
		{"redis://h\n?hunter2", "percent-encoded"},
	}
	for _, tt := range tests {
		target, err := ParseURL(tt.url)
		if err == nil {
			t.Errorf("%s: no error, %v", tt.url, target)
			continue
		}
		if !strings.HasPrefix(err.Error(), "cachedpg: cache_store: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %q, want %q", tt.url, err, tt.want)
		}
		if strings.Contains(err.Error(), "hun") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%s: the error holds the secret: %q", tt.url, err)
		}
	}
}

func TestTargetPrintsNoSecret(t *testing.T) {
	tests := []struct{ url, want string }{
		{"redis://user:hunter2@h/1?client_name=x", "redis://h:6379/1"},
		{"unix://user:hunter2@/run/s", "unix:///run/s?db=0"},
		{"redis+sentinel://user:hunter2@h?master_name=m&sentinel_password=hunter2", "redis+sentinel://h:26379/0?master_name=m"},
		{"redis+cluster://user:hunter2@h?addr=i:1", "redis+cluster://h:6379,i:1"},
	}
	for _, tt := range tests {
		target := mustParse(t, tt.url)
		if got := target.String(); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
		for _, verb := range []string{"%v", "%+v", "%s"} {
			if got := fmt.Sprintf(verb, target); strings.Contains(got, "hunter2") {
				t.Errorf("%s prints %q", verb, got)
			}
		}
	}
}

func ping(t *testing.T, url string) error {
	t.Helper()
	client := goredis.NewClient(mustParse(t, url).Options)
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return client.Ping(ctx).Err()
}

func TestParseURLReachesServers(t *testing.T) {
	t.Run("password", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "s")
		s := redistest.Start(t, "--requirepass", "pass@/#?word", "--unixsocket", socket)
		if err := ping(t, s.URL()); err != nil {
			t.Error(err)
		}
		if err := ping(t, "unix://:pass%40%2F%23%3Fword@"+socket); err != nil {
			t.Error(err)
		}
		if err := ping(t, "redis://"+s.Addr()); err == nil {
			t.Error("no password is needed")
		}
	})
	t.Run("TLS", func(t *testing.T) {
		s := redistest.TLS(t)
		if err := ping(t, s.URL()); err != nil {
			t.Error(err)
		}
		for _, query := range []string{"?skip_verify=1", "?tls_server_name=localhost&tls_ca=" + s.Certificates().CA} {
			if err := ping(t, "rediss://"+s.Addr()+query); err != nil {
				t.Errorf("%s: %v", query, err)
			}
		}
		for _, url := range []string{
			"redis://" + s.Addr(),
			"rediss://" + s.Addr(),
			"rediss://" + s.Addr() + "?tls_ca=" + s.Certificates().CA + "&tls_server_name=elsewhere",
		} {
			if err := ping(t, url); err == nil {
				t.Errorf("%s: the server is trusted", url)
			}
		}
	})
	t.Run("client certificate", func(t *testing.T) {
		certs := redistest.NewCertificates(t)
		s := redistest.TLSWith(t, certs, "--tls-auth-clients", "yes")
		if err := ping(t, s.URL()); err == nil {
			t.Error("no certificate is needed")
		}
		if err := ping(t, s.URL()+"&tls_cert="+certs.ClientCert+"&tls_key="+certs.ClientKey); err != nil {
			t.Error(err)
		}
	})
}

func TestParseURLDialsNothing(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address := listener.Addr().String()
	for _, url := range []string{"redis://" + address, "redis+cluster://" + address, "redis+sentinel://" + address + "?master_name=m"} {
		mustParse(t, url)
	}
	if err := listener.(*net.TCPListener).SetDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if conn, err := listener.Accept(); err == nil {
		conn.Close()
		t.Error("somebody has dialled")
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("redis://user:p@h:1/2?pool_size=3&read_timeout=1s")              // all parts
	f.Add("rediss+sentinel://h?master_name=m&addr=i&sentinel_password=p")  // lists
	f.Add("redis+cluster://[::1]:7000?addr=[::2]:1&conn_max_idle_time=-1") // IPv6
	f.Add("unix://u:p@/s?db=1")                                            // no host
	f.Add("redis://h?pool_size=99999999999999999999&db=%2")                // numbers and encodings out of range
	f.Fuzz(func(t *testing.T, url string) {
		if strings.Contains(url, "tls_") {
			return // these name files
		}
		target, err := ParseURL(url)
		if (target == nil) == (err == nil) {
			t.Fatalf("target %v, error %v", target, err)
		}
		if err != nil {
			return
		}
		set := 0
		var config *tls.Config
		if o := target.Options; o != nil {
			set, config = set+1, o.TLSConfig
		}
		if o := target.Failover; o != nil {
			set, config = set+1, o.TLSConfig
		}
		if o := target.ClusterOptions; o != nil {
			set, config = set+1, o.TLSConfig
		}
		if set != 1 {
			t.Errorf("%d kinds of options", set)
		}
		if strings.HasPrefix(strings.ToLower(url), "rediss") != (config != nil) {
			t.Errorf("TLS %v", config != nil)
		}
	})
}
