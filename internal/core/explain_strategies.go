package core

import (
	"fmt"
	"strings"

	"github.com/cachedpg/cachedpg/internal/planning"
	"github.com/cachedpg/cachedpg/internal/through"
)

// explainThrough says what writes do with what was cached.
func (c *Conn) explainThrough(q *call, x *Explanation) {
	if !c.d.through || !q.text.Plan.Writes || q.text.Plan.Opaque || q.text.Plan.Catalog {
		return
	}
	var names []string
	for _, oid := range planning.ThroughRelations(c.d.Config, q.view.Snapshot, q.text.Plan.WritesTo()) {
		rel := q.view.Snapshot.ByOID(oid)
		names = append(names, rel.Schema+"."+rel.Name)
	}
	if len(names) > 0 {
		x.Notes = append(x.Notes, fmt.Sprintf("Once it is committed, the results of %s that it invalidates and this process has read are read again, at most %s.",
			strings.Join(names, ", "), Count(int(min(c.d.Config.RefillMax, through.MaxRecipes)), "result")))
	}
}

// explainQueue says of a statement that may be queued what becomes of it.
func (c *Conn) explainQueue(q *call, x *Explanation) {
	if q.text.Queue.Queues && c.tx == nil {
		x.Notes = append(x.Notes, c.d.behind.Load().Explain()...)
	}
}
