import type { Row } from './api'
import { describe, expect, it } from 'vitest'
import { aggregation, barRange, bucketEnd, bytes, clock, condition, conjunction, durationMicros, end, ends, figure, followed, groupConditions, groupRange, holds, keys, literal, loaded, losses, micros, moment, moments, MOST_GROUPS, mostGroups, outcome, percent, request, served, span, state, total, unnamed, visible, what } from './format'

describe('values', () => {
  it('choose the unit that reads best', () => {
    expect(micros(999)).toBe('999 µs')
    expect(micros(1500)).toBe('1.50 ms')
    expect(micros(2_500_000)).toBe('2.50 s')
    expect([599, 754, 7500, 93_600].map((seconds) => micros(seconds * 1_000_000))).toEqual(['599.00 s', '12 min 34 s', '2 h 5 min', '1 d 2 h'])
    expect(bytes(999)).toBe('999 B')
    expect(bytes(41_234)).toBe('41 kB')
    expect([micros(999_949), micros(999_960), bytes(999_499), bytes(999_600)]).toEqual(['999.9 ms', '1.00 s', '999 kB', '1.0 MB'])
  })

  it('never round an exception away', () => {
    expect([0, 0.0001, 0.012, 0.5, 0.99999, 1].map(percent)).toEqual(['0 %', '<0.1 %', '1.2 %', '50 %', '>99.9 %', '100 %'])
    const bucket = { start: '', rows: 50, bytes: 0, ambiguous_ends: 1, unnamed_ends: 25 }
    expect(unnamed([bucket])).toEqual([
      { text: '1.0 % ambiguous', query: 'tagged_by == ambiguous' },
      { text: '25 % unattributed', query: 'tagged_by == none' },
    ])
    expect(unnamed([])).toEqual([])
  })

  it('measure durations below the millisecond', () => {
    expect(durationMicros('2026-01-01T00:00:00.000100000Z', '2026-01-01T00:00:00.002350000Z')).toBe(2250)
  })

  it('have their day unless it is today', () => {
    const [today, yesterday] = [{ start: '2026-03-02T00:00:01.250000000Z' }, { start: '2026-03-01T23:59:59.500000000Z' }]
    const now = new Date('2026-03-02T12:00:00Z')
    expect(moments([today], now)).toBe(clock)
    expect(moments([today, yesterday], now)).toBe(moment)
    expect(moment(yesterday.start)).toBe('2026-03-01 23:59:59.500')
  })

  it('end where the next bucket begins, the last one too', () => {
    const buckets = ['00', '10', '20'].map((second) => ({ start: `2026-03-01T00:00:${second}.000000000Z`, rows: 0, bytes: 0, ambiguous_ends: 0, unnamed_ends: 0 }))
    expect(bucketEnd(buckets, 0)).toBe('2026-03-01T00:00:10.000000000Z')
    expect(bucketEnd(buckets, 2)).toBe('2026-03-01T00:00:30.000000000Z')
    expect(bucketEnd([], -1)).toBe('')
    const range = { from: '2026-03-01T00:00:07Z', to: 'now' }
    expect(barRange(buckets, 0, 1, range)).toEqual({ from: range.from, to: '2026-03-01T00:00:20.000000000Z' })
    expect(barRange(buckets, 1, 2, range)).toEqual({ from: '2026-03-01T00:00:10.000000000Z', to: 'now' })
    expect(barRange(buckets, 0, 2, null)).toEqual({ from: '2026-03-01T00:00:00.000000000Z', to: '2026-03-01T00:00:30.000000000Z' })
    const short = ['018999900', '019333372'].map((rest) => ({ ...buckets[0]!, start: `2026-03-01T00:00:00.${rest}Z` }))
    expect(bucketEnd(short, 1)).toBe('2026-03-01T00:00:00.019666844Z')
  })

  it('name an end by pod, container, machine, address', () => {
    const flow = { client_ip: '10.0.0.1', client_port: 4000, client_container: 'web', client_image: 'shop:1', server_ip: '10.0.0.2', server_port: null }
    expect(end(flow, 'client')).toEqual({ name: 'web', port: ':4000', named: true, title: 'web 10.0.0.1 shop:1' })
    expect(end(flow, 'server')).toEqual({ name: '10.0.0.2', port: '', named: false, title: '10.0.0.2' })
    expect(ends(flow)).toBe('web:4000 → 10.0.0.2')
    expect(end({ ...flow, client_host: 'node', server_host: 'db' }, 'client').name).toBe('web')
    expect(end({ ...flow, server_host: 'db', server_pod: null }, 'server')).toEqual({ name: 'db', port: '', named: true, title: 'db 10.0.0.2' })
  })
})

describe('names that pose as others', () => {
  it('show what cannot be seen', () => {
    expect(visible('\u202eltr-gnp.exe')).toBe('⟨202E⟩ltr-gnp.exe')
    expect(visible('web\u200b \u2066a\u200d')).toBe('web⟨200B⟩ ⟨2066⟩a⟨200D⟩')
    expect(end({ client_pod: 'web\ufeff' }, 'client').name).toBe('web⟨FEFF⟩')
    for (const name of ['web', 'عربي-خدمة', '日本語', '👩‍👩‍👧‍👦🏳️‍🌈', 'é e\u0301']) expect(visible(name)).toBe(name)
  })
})

describe('losses', () => {
  it('are named, and nothing is nothing', () => {
    const none = { node: 'a', packets: 9, kernel_drops: 0, queue_drops: 0, refused: 3, unwritten: 0, flow_rows_lost: 0, transactions_lost: 0, interruptions: 0, not_captured_seconds: 0 }
    expect(losses(none)).toEqual([])
    expect(losses({ ...none, queue_drops: 1, unwritten: 2, flow_rows_lost: 4 })).toEqual(['3 packets not kept', '4 flow rows lost'])
    expect(losses({ ...none, not_captured_seconds: 160 })).toEqual(['160 s in which nothing was captured'])
  })
})

describe('exchanges', () => {
  it('are a request and what came of it', () => {
    const http = { http_method: 'GET', http_host: 'shop', http_path: '/cart', http_status: 404, complete: true }
    expect(request(http)).toBe('GET shop/cart')
    expect(outcome(http)).toEqual({ text: '404', bad: true })
    expect(request({ http_method: 'GET', http_host: 'a', http_path: 'http://a/b' })).toBe('GET http://a/b')
    const dns = { dns_query: 'web.demo', dns_type: 'A', dns_rcode: 'NOERROR', http_status: null }
    expect(request(dns)).toBe('A web.demo')
    expect(outcome(dns)).toEqual({ text: 'NOERROR', bad: false })
    expect(outcome({ http_status: 200, grpc_status: 5 })).toEqual({ text: '200 grpc 5', bad: true })
    expect(outcome({ complete: false })).toEqual({ text: 'no answer', bad: true })
  })
})

describe('flows', () => {
  it('are marked where something failed, whatever DNS calls it', () => {
    expect(state({ tcp_state: 'REJ', dns_rcode: null })).toEqual({ text: 'REJ', bad: true })
    expect(state({ tcp_state: 'SF', dns_rcode: null })).toEqual({ text: 'SF', bad: false })
    for (const rcode of ['NXDOMAIN', 'SERVFAIL', 'REFUSED', 'FORMERR']) expect(state({ dns_rcode: rcode })).toEqual({ text: rcode, bad: true })
    expect([state({ dns_rcode: 'NOERROR' }).bad, state({})]).toEqual([false, { text: '', bad: false }])
  })

  it('are about a name, a request, a server', () => {
    expect(what({ dns_query: 'web.demo', dns_type: 'A', dns_rcode: 'NXDOMAIN' })).toBe('A web.demo')
    expect(what({ http_method: 'GET', http_host: 'shop', http_path: '/cart', http_status: 503 })).toBe('GET shop/cart → 503')
    expect(what({ http_status: 200 })).toBe('→ 200')
    expect(what({ tls_sni: 'shop.example', http_method: null, http_path: null })).toBe('shop.example')
    expect(what({ protocol: 'tcp' })).toBe('')
  })
})

describe('followed flows', () => {
  const row = (flow_id: string, end_reason: string | null = 'fin', slice = 0) => ({ flow_id, slice, end_reason })

  it('stand before the others, and only so many are kept', () => {
    expect(followed([row('b'), row('a')], [row('d'), row('c')], 3)).toEqual([row('d'), row('c'), row('b')])
  })

  it('take the place of what was open', () => {
    expect(followed([row('b'), row('a', null), row('a', 'fin', 1)], [row('a')])).toEqual([row('a'), row('b'), row('a', 'fin', 1)])
  })
})

describe('rows', () => {
  it('that are alike are told apart: the same packets were stored twice', () => {
    const rows = [{ flow_id: 'a', slice: 0 }, { flow_id: 'a', slice: 1 }, { flow_id: 'a', slice: 0 }, { flow_id: 'a', slice: 0 }]
    expect(keys(rows, 'slice')).toEqual(['a.0', 'a.1', 'a.0.2', 'a.0.3'])
  })

  it('that are alike all stay when a newer one is followed', () => {
    const [one, other] = [{ flow_id: 'a', slice: 0 }, { flow_id: 'b', slice: 0 }]
    expect(followed([one, one], [other])).toEqual([other, one, one])
  })
})

describe('what is shown', () => {
  it('is so much of all', () => {
    const bar = { start: '', ambiguous_ends: 0, unnamed_ends: 0 }
    const all = total([{ ...bar, rows: 6000, bytes: 1_000_000_000 }, { ...bar, rows: 241, bytes: 331_000_000 }])
    expect(all).toEqual({ rows: 6241, bytes: 1_331_000_000 })
    const shown = { rows: 100, bytes: 682_000_000 }
    expect(loaded('flows', shown, all, true)).toBe('The newest 100 of 6241 flows, 682 MB of 1.3 GB')
    expect(loaded('transactions', shown, all, true)).toBe('The newest 100 of 6241 transactions')
    expect(loaded('flows', shown, { rows: 98, bytes: 1 }, true)).toBe('100+ flows, 682 MB')
    expect(loaded('flows', { rows: 1, bytes: 5 }, { rows: 0, bytes: 0 }, false)).toBe('1 flow, 5 B')
  })
})

describe('queries', () => {
  it('quote text and not numbers', () => {
    expect(condition('server_port', 80)).toBe('server_port == 80')
    expect(condition('client_container', 'a"b')).toBe('client_container == "a\\"b"')
  })

  it('have texts in quotes where they must', () => {
    expect(['web-1', 'shop/cart:1', 'OR', 'a b', 'a*'].map(literal)).toEqual(['web-1', 'shop/cart:1', '"OR"', '"a b"', String.raw`"a\*"`])
  })

  it('mean this value only, whatever its characters', () => {
    expect(condition('client_workload', String.raw`a\b*c?`)).toBe(String.raw`client_workload == "a\\b\*c\?"`)
    expect(condition('client_workload', 'a | b')).toBe('client_workload == "a | b"')
    expect(condition('primary', true)).toBe('primary == true')
    expect(condition('client_workload', null)).toBe('client_workload not exists')
  })

  it('find the rows of a group', () => {
    const columns = ['ip', 'labels.app', 'server_port', 'time'].map((name) => ({ name, kind: name === 'time' ? 'time' : 'text', key: true }))
    const known = new Set(['client_ip', 'client_labels', 'server_port'])
    const of = (row: Row) => groupConditions({ columns: columns.filter(({ name }) => name in row) }, row, known)
    expect(of({ ip: 'a', server_port: 53, time: 'x' })).toEqual(['ip == "a"', 'server_port == 53'])
    // Where either side may be meant, none on one of them; and all of one side.
    expect(of({ ip: null })).toEqual(['(client_ip not exists) or (server_ip not exists)'])
    expect(of({ ip: 'a', 'labels.app': null, server_port: null })).toEqual([
      'server_port not exists',
      '(client_ip == "a" and client_labels.app not exists) or (server_ip == "a" and server_labels.app not exists)',
    ])
    expect(of({ time: 'x' })).toEqual([])
    const label = (name: string) => groupConditions({ columns: [{ name, kind: 'text', key: true }] }, { [name]: 'x' }, known)
    expect(label('labels.app.kubernetes.io/name')).toEqual(['labels.app.kubernetes.io/name == "x"'])
    expect(label(String.raw`client_labels.we"ird k\ey`)).toEqual([String.raw`client_labels."we\"ird k\\ey" == "x"`])
  })

  it('measure time', () => {
    expect(['5m', '1h30m', '250ms', '2w', ''].map(span)).toEqual([300_000, 5_400_000, 250, 1_209_600_000, 0])
  })

  it('find them in the time of the group, as far as it was asked for', () => {
    const columns = [{ name: 'time', kind: 'time', key: true }]
    const range = { from: '2026-03-01T00:02:00.250000001Z', to: '2026-03-01T02:07:00.000000000Z' }
    const of = (time: string, rest: string) => groupRange({ columns, range }, { time: `2026-03-01T${time}.000000000Z` }, rest)
    expect(of('01:00:00', 'count by app, 5m')).toEqual({ from: '2026-03-01T01:00:00.000000000Z', to: '2026-03-01T01:05:00.000000000Z' })
    expect(of('00:00:00', 'p95(client_rtt_us) by time(1h30m) | limit 3')).toEqual({ from: range.from, to: '2026-03-01T01:30:00.000000000Z' })
    expect(of('02:00:00', 'count by 1h')).toEqual({ from: '2026-03-01T02:00:00.000000000Z', to: range.to })
    expect(groupRange({ columns: [], range }, {}, 'top 20 app')).toBeNull()
  })

  it('hold a condition only as it is', () => {
    const holding = ['tagged_by == none', 'port == 1 and tagged_by == none', 'tagged_by == none AND x']
    const others = ['not (port == 1 and tagged_by == none and app exists)', '', 'client_tagged_by == none', 'not tagged_by == none', 'tagged_by == none or port == 1', 'tagged_by == none_at_all']
    expect([...holding, ...others].filter((query) => holds(query, 'tagged_by == none'))).toEqual(holding)
  })

  it('are put together', () => {
    expect(conjunction(['', condition('app', 'dns')])).toBe('app == "dns"')
    expect(conjunction(['ip == 1.1.1.1 OR port == 2', 'app == "dns"'])).toBe('(ip == 1.1.1.1 OR port == 2) and app == "dns"')
    expect(conjunction(['a == 1 || b == 2'])).toBe('a == 1 || b == 2')
    expect(conjunction([' * ', 'a == 1', 'b == 2'])).toBe('a == 1 and b == 2')
    expect(conjunction([])).toBe('')
  })
})

describe('aggregations', () => {
  it('stand behind a pipe that is none of `||` and not in quotes', () => {
    expect(aggregation('pod == web || port == 53')).toBeNull()
    expect(aggregation('http_path ~ "a|b" and pod == "x\\"|"')).toBeNull()
    expect(aggregation('| count')).toEqual({ condition: '', rest: 'count' })
    expect(aggregation("a == '|' || b == 1 | top ip | limit 3")).toEqual({ condition: "a == '|' || b == 1", rest: 'top ip | limit 3' })
  })

  it('have figures of their kind', () => {
    expect(figure(41_234, 'size')).toBe('41 kB')
    expect(figure(41_234.5, 'size_per_second')).toBe('41 kB/s')
    expect([figure(0, 'size_per_second'), figure(0.2, 'size_per_second')]).toEqual(['0 B/s', '<1 B/s'])
    expect(figure(1500, 'duration')).toBe('1.50 ms')
    expect(figure(2.5, 'number_per_second')).toBe('2.50/s')
    expect(figure('2026-03-01T14:05:00.000000000Z', 'time')).toBe('2026-03-01 14:05:00')
    expect(figure(null, 'text')).toBe('—')
  })

  it('are the newest, if there are more of a time than are shown', () => {
    const columns = [{ name: 'time', kind: 'time', key: true }]
    const rows = Array.from({ length: MOST_GROUPS + 2 }, (_, at) => ({ time: new Date(at * 60_000).toISOString() }))
    expect(mostGroups({ columns, rows })).toEqual(rows.slice(2))
    expect(mostGroups({ columns, rows: rows.toReversed() })).toEqual(rows.toReversed().slice(0, MOST_GROUPS))
    expect(mostGroups({ columns: [{ name: 'app', kind: 'text', key: true }], rows })).toEqual(rows.slice(0, MOST_GROUPS))
  })

  it('say where they come from', () => {
    expect(served({ rollups: 0, files: 1, rows: 20 })).toBe('from 1 file, 20 rows')
    expect(served({ rollups: 2, files: 0, rows: 1, resolution: 3600 })).toBe('from 2 roll-ups, 1 row; where only roll-ups are left, whole hours count')
  })
})
