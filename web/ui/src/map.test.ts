import { describe, expect, it } from 'vitest'
import type { Edge, Workload } from './api'
import { ARROW, BULGE, curve } from './curve'
import { conjunction } from './format'
import { type Box, layout, NODE, type Place } from './layout'
import { breadth, drawn, edgeConditions, figures, groupName, level, nodeConditions, nodeName, readChoice, short, troubles, written } from './map'

const node = (id: string, names: Partial<Workload> = {}): Workload => ({
  id, cluster: null, namespace: null, workload: id, workload_kind: null,
  count_as_client: 0, count_as_server: 0, sent_bytes: 0, received_bytes: 0, ...names,
})

const edge = (client: string, server: string, figures: Partial<Edge> = {}): Edge => ({
  client, server, count: 100, bytes: 1000, client_bytes: 500, server_bytes: 500, packets: 1000,
  retransmits: null, resets: null, syn_retries: null, http_requests: null, http_errors: null,
  client_rtt_p50_us: null, client_rtt_p95_us: null, server_rtt_p50_us: null, server_rtt_p95_us: null,
  response_time_p50_us: null, response_time_p95_us: null, ...figures,
})

/** Nodes in namespaces, and links that look random and are the same in each run. */
function many(count: number) {
  const items = Array.from({ length: count }, (_, at) => ({ id: `n${at}`, group: `ns${at % Math.ceil(count / 20)}` }))
  let state = 7
  const next = () => (state = (state * 48_271) % 2_147_483_647) % count
  return { items, links: Array.from({ length: 2 * count }, () => ({ client: `n${next()}`, server: `n${next()}` })) }
}

describe('a layout', () => {
  it('puts who asks to the left of whom it asks', () => {
    const items = ['web', 'db', 'client', 'cache'].map((id) => ({ id, group: 'shop' }))
    const links = [['client', 'web'], ['web', 'db'], ['web', 'cache'], ['db', 'web']].map(([client = '', server = '']) => ({ client, server }))
    const { places, boxes } = layout(items, links, 1200)
    const x = (id: string) => places.get(id)?.x ?? -1
    expect(x('client')).toBeLessThan(x('web'))
    expect(x('web')).toBeLessThan(x('cache'))
    expect(x('web')).toBeLessThan(x('db'))
    expect(boxes.map((box) => box.group)).toEqual(['shop'])
  })

  it.each([1, 5, 40, 300])('of %i nodes has no two things in one place, and fits', (count) => {
    const { items, links } = many(count)
    for (const width of [700, 1250]) {
      const { places, boxes, ...size } = layout(items, links, width)
      expect(places.size).toBe(count)
      expect(size.width).toBeLessThanOrEqual(width)
      const apart = (a: Place, b: Place, w: number, h: number) => Math.abs(a.x - b.x) >= w || Math.abs(a.y - b.y) >= h
      const corners = [...places.values()]
      for (const [at, own] of corners.entries()) {
        expect(corners.slice(at + 1).every((other) => apart(own, other, NODE.width, NODE.height))).toBe(true)
      }
      const clear = (a: Box, b: Box) => a.x >= b.x + b.width || b.x >= a.x + a.width || a.y >= b.y + b.height || b.y >= a.y + a.height
      for (const [at, own] of boxes.entries()) expect(boxes.slice(at + 1).every((other) => clear(own, other))).toBe(true)
      for (const { id, group } of items) {
        const [place, box] = [places.get(id), boxes.find((own) => own.group === group)]
        if (!place || !box) throw new Error(id)
        expect(place.x >= box.x && place.x + NODE.width <= box.x + box.width).toBe(true)
        expect(place.y >= box.y && place.y + NODE.height <= box.y + box.height).toBe(true)
      }
    }
  })

  it('is the same whatever order the answer has', () => {
    const { items, links } = many(60)
    const [one, other] = [layout(items, links, 1000), layout(items.toReversed(), links.toReversed(), 1000)]
    expect([...other.places].sort()).toEqual([...one.places].sort())
  })

  it('of nothing is nothing', () => {
    expect(layout([], [], 800)).toEqual({ width: 0, height: 0, boxes: [], places: new Map() })
  })
})

describe('a curve', () => {
  const at = (x: number, y: number): Place => ({ x, y })
  /** Begin, and end before the arrow. */
  const ends = (path: string) => {
    const numbers = (path.match(/-?[\d.]+/g) ?? []).map(Number)
    return { from: numbers.slice(0, 2), to: numbers.slice(-2), reach: Math.max(...numbers.filter((_, index) => index % 2 === 0)) }
  }
  const middle = NODE.height / 2

  it('goes from the side of the client to the side of the server that are nearest', () => {
    expect(ends(curve(at(0, 0), at(400, 100)))).toMatchObject({ from: [NODE.width, middle - 4], to: [400 - ARROW, 100 + middle - 4] })
    expect(ends(curve(at(400, 100), at(0, 0)))).toMatchObject({ from: [400, 100 + middle + 4], to: [NODE.width + ARROW, middle + 4] })
  })

  it('goes around the right of what stands above each other, not beyond the drawing', () => {
    for (const path of [curve(at(0, 0), at(0, 900)), curve(at(0, 900), at(0, 0)), curve(at(0, 0), at(0, 0))]) {
      const { from, to, reach } = ends(path)
      expect([from[0], to[0]]).toEqual([NODE.width, NODE.width + ARROW])
      expect(reach).toBeGreaterThan(NODE.width)
      expect(reach).toBeLessThanOrEqual(NODE.width + BULGE)
    }
  })
})

describe('the map', () => {
  it('draws the greatest edges whose nodes have room', () => {
    const nodes = ['a', 'b', 'c', 'd'].map((id) => node(id))
    const edges = [edge('a', 'b'), edge('c', 'd'), edge('c', 'a'), edge('b', 'b')]
    const shown = drawn({ nodes, edges }, 3)
    expect(shown.edges).toEqual([edges[0], edges[2], edges[3]])
    expect(shown.nodes.map((own) => own.id)).toEqual(['a', 'b', 'c'])
  })

  it('names what has no owner', () => {
    expect([nodeName(node('x')), groupName(node('x'))]).toEqual(['x', 'no namespace'])
    expect(nodeName(node('', { workload: null, namespace: 'shop' }))).toBe('no workload')
    expect(groupName(node('', { namespace: 'shop', cluster: 'east' }))).toBe('east / shop')
    const stranger = node('', { workload: null })
    expect([nodeName(stranger), groupName(stranger)]).toEqual(['no workload', 'elsewhere'])
    expect(short('checkout-service-canary', 15)).toBe('checkou…-canary')
    expect(short('web', 15)).toBe('web')
  })

  it('marks edges on which much goes wrong', () => {
    expect(level(edge('a', 'b', { http_errors: 2, http_requests: 2 }))).toBe('none')
    expect(troubles(edge('a', 'b', { http_errors: 3, http_requests: 100, retransmits: 30 }))).toEqual([
      { part: 'retransmits', level: 'much', text: '3.0 % retransmissions' },
      { part: 'http_errors', level: 'some', text: '3.0 % HTTP errors' },
    ])
    expect(troubles(edge('a', 'b', { resets: 200 }))).toEqual([{ part: 'resets', level: 'much', text: '200 resets in 100 flows' }])
  })

  it('shows the figures that were seen', () => {
    const seen = edge('a', 'b', { server_rtt_p50_us: 30, server_rtt_p95_us: 1500, http_requests: 8, http_errors: 2, retransmits: 0 })
    expect(Object.fromEntries(figures(seen))).toEqual({
      bytes: '1.0 kB', 'from the client': '500 B', 'from the server': '500 B', flows: '100', packets: '1000',
      'rtt to server, p50 · p95': '30 µs · 1.50 ms', 'HTTP requests': '8', 'HTTP errors': '2 (25 %)', retransmissions: '0',
    })
  })

  it('has its choice in a link', () => {
    for (const choice of [null, { id: '/shop//web' }, { client: '///', server: '/shop//a b' }, { id: '//a\nb/' }, { client: '//%250A\n/', server: '///' }]) expect(readChoice(written(choice))).toEqual(choice)
  })

  it('has broader lines for more bytes', () => {
    expect(breadth(1e9, 1e9)).toBe(6)
    expect(breadth(0, 1e9)).toBe(1)
    expect(breadth(1e7, 1e9)).toBeGreaterThan(breadth(1e6, 1e9))
  })
})

describe('questions behind the map', () => {
  const web = node('', { namespace: 'shop', workload: 'we"b*', workload_kind: 'deployment' })
  const stranger = node('', { workload: null })
  const client = String.raw`client_cluster not exists and client_namespace == "shop" and client_workload == "we\"b\*" and client_workload_kind == "deployment"`
  const none = 'cluster not exists and server_namespace not exists and server_workload not exists and server_workload_kind not exists'

  it('name both ends of an edge, or say that they have no name', () => {
    expect(conjunction(['port == 1 or port == 2', ...edgeConditions(web, stranger)])).toBe(
      `(port == 1 or port == 2) and ${client} and server_${none}`,
    )
  })

  it('name a node on either side', () => {
    expect(conjunction(['app == "dns"', ...nodeConditions(web)])).toBe(
      `app == "dns" and ((${client}) or (${client.replaceAll('client_', 'server_')}))`,
    )
    expect(conjunction(nodeConditions(web, 'client'))).toBe(client)
  })
})
