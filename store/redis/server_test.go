package redis

import "testing"

// Two URLs name one store if what they differ in says how it is reached.
func TestServerNamesTheStoreAndNotTheWayToIt(t *testing.T) {
	for _, same := range [][]string{
		{"redis://h", "redis://h:6379", "redis://h/0", "redis://H", "redis://u:p@h", "rediss://h", "rediss://h?skip_verify=true", "redis://h?pool_size=3&dial_timeout=2s&client_name=x"},
		{"redis://localhost", "redis://127.0.0.1", "redis://[::1]", "redis://"},
		{"redis+sentinel://a?addr=b&master_name=m", "redis+sentinel://b?addr=a&master_name=m&sentinel_username=u&sentinel_password=p"},
		{"redis+cluster://a?addr=b&addr=c", "redis+cluster://c?addr=a&addr=b&addr=b", "rediss+cluster://c?addr=a&addr=b"},
		{"unix:///run/redis.sock", "unix:///run/redis.sock?db=0&pool_size=1"},
	} {
		for _, other := range same[1:] {
			if got, want := serverOf(t, other), serverOf(t, same[0]); got != want {
				t.Errorf("%s is %q, and %s is %q", other, got, same[0], want)
			}
		}
	}
	names := make(map[string]string)
	for _, different := range []string{
		"redis://h", "redis://h/1", "redis://h:6380", "redis://i", "redis+sentinel://h?master_name=m", "redis+sentinel://h?master_name=n",
		"redis+sentinel://h/1?master_name=m", "redis+cluster://h", "unix:///h", "unix:///h?db=1", "redis+cluster://h?addr=i",
	} {
		name := serverOf(t, different)
		if other, ok := names[name]; ok {
			t.Errorf("%s and %s are both %q", different, other, name)
		}
		names[name] = different
	}
}

func serverOf(t *testing.T, url string) string {
	t.Helper()
	target, err := ParseURL(url)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return target.Server()
}
