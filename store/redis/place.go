package redis

import (
	"crypto/sha256"
	"strconv"
)

// Place names the servers and the database in use: processes that give the same
// one meet in the same stamps and intents, by whatever address or URL they came.
// It changes when a server restarts or is replaced, as the names of everything in
// it do, and is "" while none is connected.
func (s *Store) Place() string {
	in := s.inUse.Load()
	if in == nil {
		return ""
	}
	h := sha256.New()
	for _, p := range in.partitions {
		h.Write([]byte(p.prefix))
	}
	h.Write([]byte(strconv.Itoa(in.nodes[0].client.Options().DB)))
	return string(h.Sum(nil))
}
