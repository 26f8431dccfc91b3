/** The service map as people read it: names, marks, and the questions behind what was chosen. */

import type { Edge, Figures, Topology, Workload } from './api'
import { bytes, condition, either, micros, percent, visible } from './format'

/** Nodes that are drawn at most; the table has all edges. */
export const MOST_NODES = 300

/** A node, or an edge. */
export type Choice = { id: string } | { client: string; server: string }

/** What a link says of the choice, two ids in two lines. In an id a `%` is `%25`, and so `%0A` can be a line break of it. */
export function written(choice: Choice | null): string {
  if (choice === null) return ''
  const ids = 'id' in choice ? [choice.id] : [choice.client, choice.server]
  return ids.map((id) => id.replaceAll('\n', '%0A')).join('\n')
}

export function readChoice(text: string | null): Choice | null {
  if (!text) return null
  const [client = '', server] = text.split('\n').map((id) => id.replaceAll('%0A', '\n'))
  return server === undefined ? { id: client } : { client, server }
}

type Names = Pick<Workload, 'cluster' | 'namespace' | 'workload' | 'workload_kind'>

/** What a node is called; ends that nobody owns are together. */
export function nodeName(node: Names): string {
  return visible(node.workload ?? 'no workload')
}

/** What its box is called. */
export function groupName(node: Names): string {
  const parts = [node.cluster, node.namespace].filter((part) => part !== null)
  if (parts.length > 0) return visible(parts.join(' / '))
  return node.workload === null ? 'elsewhere' : 'no namespace'
}

/** A long name without its middle: beginnings and ends tell workloads apart. */
export function short(name: string, most: number): string {
  const letters = [...name]
  if (letters.length <= most) return name
  const end = Math.floor((most - 1) / 2)
  return `${letters.slice(0, most - 1 - end).join('')}…${letters.slice(-end).join('')}`
}

/** The edges that are drawn, most bytes first, and their nodes. */
export function drawn({ nodes, edges }: Pick<Topology, 'nodes' | 'edges'>, most: number = MOST_NODES): { nodes: Workload[]; edges: Edge[] } {
  const ids = new Set<string>()
  const kept = edges.filter(({ client, server }) => {
    const ends = [...new Set([client, server])].filter((id) => !ids.has(id))
    if (ids.size + ends.length > most) return false
    ends.forEach((id) => ids.add(id))
    return true
  })
  return { nodes: nodes.filter((node) => ids.has(node.id)), edges: kept }
}

const KEYS = ['cluster', 'namespace', 'workload', 'workload_kind'] as const

/** Conditions for rows whose one side is this node. */
const side = (node: Names, end: 'client' | 'server') => KEYS.map((key) => condition(`${end}_${key}`, node[key]))

/** Conditions for the rows of an edge. */
export const edgeConditions = (client: Names, server: Names): string[] => [...side(client, 'client'), ...side(server, 'server')]

/** Conditions for the rows of a node on one side, or on either. */
export function nodeConditions(node: Names, end?: 'client' | 'server'): string[] {
  if (end) return side(node, end)
  return [either((own) => side(node, own))]
}

export type Level = 'none' | 'some' | 'much'

/** From which share on an edge is marked. */
export const MARKS = [
  { what: 'HTTP errors', of: 'requests', part: 'http_errors', whole: 'http_requests', some: 0.01, much: 0.05 },
  { what: 'retransmissions', of: 'packets', part: 'retransmits', whole: 'packets', some: 0.005, much: 0.02 },
  { what: 'resets', of: 'flows', part: 'resets', whole: 'count', some: 0.1, much: 0.5 },
  { what: 'SYNs again', of: 'flows', part: 'syn_retries', whole: 'count', some: 0.05, much: 0.25 },
] as const
type Mark = (typeof MARKS)[number]
/** Fewer happen to everyone. */
const LEAST = 3

/** What is wrong on an edge, worst first. */
export function troubles(edge: Figures): { part: Mark['part']; level: Level; text: string }[] {
  const found = MARKS.flatMap(({ what, of, part, whole, some, much }) => {
    const [count, all] = [edge[part] ?? 0, edge[whole] ?? 0]
    if (count < LEAST || all === 0 || count / all < some) return []
    const share = count / all
    const level: Level = share < much ? 'some' : 'much'
    return { part, level, text: share > 1 ? `${count} ${what} in ${all} ${of}` : `${percent(share)} ${what}` }
  })
  return found.sort((a, b) => Number(b.level === 'much') - Number(a.level === 'much'))
}

/** The worst of it. */
export const level = (edge: Figures): Level => troubles(edge)[0]?.level ?? 'none'

/** How broad an edge is, px, beside the one with the most bytes: a pixel more for a bit more than each fivefold. */
export function breadth(bytes: number, most: number): number {
  return Math.max(1, 6 + Math.log10(Math.max(1, bytes) / Math.max(1, most)) * 1.4)
}

/** Median and 95th percentile. */
export const pair = (half: number | null, most: number | null): string => (half === null || most === null ? '' : `${micros(half)} · ${micros(most)}`)

/** A number, and what share that is. */
export function part(count: number | null, whole: number | null): string {
  if (count === null) return ''
  return count > 0 && whole !== null && whole >= count ? `${count} (${percent(count / whole)})` : String(count)
}

/** Names and values of what was seen, median and 95th percentile of what has a distribution. */
export function figures(of: Figures): [string, string][] {
  const all: [string, string][] = [
    ['bytes', bytes(of.bytes)],
    ['from the client', bytes(of.client_bytes)],
    ['from the server', bytes(of.server_bytes)],
    ['flows', String(of.count)],
    ['packets', String(of.packets)],
    ['rtt to client, p50 · p95', pair(of.client_rtt_p50_us, of.client_rtt_p95_us)],
    ['rtt to server, p50 · p95', pair(of.server_rtt_p50_us, of.server_rtt_p95_us)],
    ['response, p50 · p95', pair(of.response_time_p50_us, of.response_time_p95_us)],
    ['HTTP requests', part(of.http_requests, null)],
    ['HTTP errors', part(of.http_errors, of.http_requests)],
    ['retransmissions', part(of.retransmits, of.packets)],
    ['resets', part(of.resets, null)],
    ['SYNs again', part(of.syn_retries, null)],
  ]
  return all.filter(([, value]) => value !== '')
}
