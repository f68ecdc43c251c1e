package web

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/tranter-ci/tranter/internal/view"
)

// Measures of the graph of a pipeline, in pixels.
const (
	nodeWidth, nodeHeight = 196, 44
	nodeGap               = 14
	stageGap              = 64
	graphTop, graphLeft   = 40, 8
	nodeRunes             = 20 // of a job's name
	mostEdges             = 2000
)

func (s *Server) pipelineRoutes(mux *http.ServeMux) {
	p := pipelinePages{s}
	mux.Handle("GET /pipelines", s.cached(p.showPipelines))
	mux.Handle("GET /pipelines/{id}", s.cached(p.showPipeline))
}

// pipelinePages are the pages of pipelines.
type pipelinePages struct{ *Server }

// pipelinesData is the list of pipelines, or the one that was asked for.
type pipelinesData struct{ Pipelines []pipelineView }

type pipelineView struct {
	view.Pipeline

	Graph graph
	Link  string
	Done  int // jobs that have ended
	Rows  []pipelineRow
}

// pipelineRow is a job of the graph in words.
type pipelineRow struct {
	view.PipelineJob

	Link, Took, After, Tone string
}

// graph is a pipeline as it is drawn.
type graph struct {
	Width, Height int
	Stages        []graphText
	Edges         []graphEdge
	Nodes         []graphNode
}

type graphText struct {
	X, Y int
	Text string
}

type graphEdge struct{ Path, Class string }

type graphNode struct {
	X, Y                     int
	Name, Full, State, Took  string
	Tone, Glyph, Link, Label string
}

func (s pipelinePages) showPipelines(w http.ResponseWriter, r *http.Request) {
	now, err := s.snapshot(r.Context())
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, "What is there is not known: "+err.Error())
		return
	}
	d := &pipelinesData{}
	for _, p := range now.Pipes {
		d.Pipelines = append(d.Pipelines, pipelineOf(p))
	}
	s.page(w, r, "pipelines", d)
}

func (s pipelinePages) showPipeline(w http.ResponseWriter, r *http.Request) {
	now, err := s.snapshot(r.Context())
	if err != nil {
		s.fail(w, r, http.StatusServiceUnavailable, "What is there is not known: "+err.Error())
		return
	}
	i := slices.IndexFunc(now.Pipes, func(p view.Pipeline) bool { return strconv.FormatInt(p.ID, 10) == r.PathValue("id") })
	if i < 0 {
		s.fail(w, r, http.StatusNotFound, "There is no pipeline "+strconv.Quote(r.PathValue("id"))+" here.")
		return
	}
	s.page(w, r, "pipelines", &pipelinesData{Pipelines: []pipelineView{pipelineOf(now.Pipes[i])}})
}

func pipelineOf(p view.Pipeline) pipelineView {
	v := pipelineView{Pipeline: p, Graph: drawGraph(p), Link: "/pipelines/" + strconv.FormatInt(p.ID, 10)}
	for _, j := range p.Jobs {
		row := pipelineRow{PipelineJob: j, Tone: tone(j.Status), After: "all of the stages before"}
		if j.Duration > 0 {
			row.Took = view.Short(j.Duration)
		}
		if j.Key != "" {
			row.Link = jobLink(j.Key)
		}
		if j.Needs != nil {
			row.After = fmt.Sprintf("%d jobs", len(j.Needs))
		}
		switch j.Status {
		case "success", "failed", "canceled", "skipped":
			v.Done++
		}
		v.Rows = append(v.Rows, row)
	}
	return v
}

// drawGraph places the jobs of a pipeline by their stages, and draws what they need.
func drawGraph(p view.Pipeline) graph {
	g := graph{Width: graphLeft, Height: graphTop}
	places := map[string]int{} // index of the node of a job
	column := map[string]int{}
	used := slices.DeleteFunc(slices.Clone(p.Stages), func(stage string) bool { // .pre and .post are there without jobs, too
		return !slices.ContainsFunc(p.Jobs, func(j view.PipelineJob) bool { return j.Stage == stage })
	})
	for i, stage := range used {
		column[stage] = i
		x := graphLeft + i*(nodeWidth+stageGap)
		g.Stages = append(g.Stages, graphText{X: x, Y: 20, Text: stage})
		g.Width = x + nodeWidth + graphLeft
	}
	rows := map[int]int{}
	byColumn := map[int][]int{}
	for _, j := range p.Jobs {
		c := column[j.Stage]
		n := graphNode{
			X: graphLeft + c*(nodeWidth+stageGap), Y: graphTop + rows[c]*(nodeHeight+nodeGap),
			Name: shorten(j.Name, nodeRunes), Full: j.Name, State: view.StateWord(j.Status), Tone: tone(j.Status),
		}
		rows[c]++
		n.Glyph = glyph(n.Tone)
		if j.Duration > 0 {
			n.Took = view.Short(j.Duration)
		}
		if j.Key != "" {
			n.Link = jobLink(j.Key)
		}
		n.Label = j.Name + ", stage " + j.Stage + ", " + n.State
		if j.Allowed {
			n.Label += ", allowed to fail"
		}
		places[j.Name] = len(g.Nodes)
		byColumn[c] = append(byColumn[c], len(g.Nodes))
		g.Nodes = append(g.Nodes, n)
		g.Height = max(g.Height, n.Y+nodeHeight+graphLeft)
	}
	for i, j := range p.Jobs {
		g.edges(i, j, places, byColumn[column[j.Stage]-1])
	}
	return g
}

// edges draws the lines to a job from what it needs; without needs, from the stage before if that is not too much to look at.
func (g *graph) edges(node int, j view.PipelineJob, places map[string]int, before []int) {
	var from []int
	for _, name := range j.Needs {
		if i, ok := places[name]; ok {
			from = append(from, i)
		}
	}
	class := "g-edge"
	if j.Needs == nil && len(before) <= 8 {
		from, class = before, "g-edge g-soft"
	}
	for _, i := range from {
		if len(g.Edges) >= mostEdges || i == node {
			continue
		}
		a, b := g.Nodes[i], g.Nodes[node]
		g.Edges = append(g.Edges, graphEdge{Class: class, Path: edge(a, b)})
	}
}

func edge(a, b graphNode) string {
	x1, y1, x2, y2 := a.X+nodeWidth, a.Y+nodeHeight/2, b.X, b.Y+nodeHeight/2
	if b.X <= a.X { // in the same stage: around on the left
		x1 = a.X
		return fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, x1-stageGap/2, y1, x2-stageGap/2, y2, x2, y2)
	}
	bend := max(stageGap/2, (x2-x1)/2)
	return fmt.Sprintf("M%d %dC%d %d %d %d %d %d", x1, y1, x1+bend, y1, x2-bend, y2, x2, y2)
}

// shorten cuts a text to a number of characters.
func shorten(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}
