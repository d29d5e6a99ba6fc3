package config

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// maxCompared bounds the bytes of an unknown name that are compared: a distance costs the product
// of both lengths.
const maxCompared = 96

// nearestKey returns the known key, or for a table the known table, that an unknown name was most
// likely meant to be: the smallest share of changed letters. The right last part in the wrong table
// counts as near.
func nearestKey(unknown string, isTable bool) string {
	var candidates []string
	if isTable {
		candidates = slices.Sorted(maps.Keys(known().tables))
	} else {
		for _, k := range known().keys {
			candidates = append(candidates, k.Name)
		}
	}
	unknown = strings.ToLower(unknown)
	const otherTable = 0.15
	return nearest(candidates, func(candidate string) float64 {
		return min(changed(unknown, candidate), otherTable+changed(lastPart(unknown), lastPart(candidate)))
	})
}

func lastPart(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// nearestEnv does the same for names of environment variables.
func nearestEnv(unknown string) string {
	var candidates []string
	for _, k := range known().keys {
		candidates = append(candidates, k.Env)
	}
	return nearest(candidates, func(candidate string) float64 { return changed(unknown, candidate) })
}

// nearest returns the first of the candidates with the lowest score.
func nearest(candidates []string, score func(string) float64) string {
	return slices.MinFunc(candidates, func(a, b string) int { return cmp.Compare(score(a), score(b)) })
}

// changed returns the distance of two names as a share of the longer one, 0 to 1.
func changed(a, b string) float64 {
	longer := min(max(len(a), len(b), 1), maxCompared)
	return float64(distance(a, b)) / float64(longer)
}

// distance returns the Levenshtein distance of two names, in bytes.
func distance(a, b string) int {
	a, b = a[:min(len(a), maxCompared)], b[:min(len(b), maxCompared)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitution := diagonal
			if a[i] != b[j] {
				substitution++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitution, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
