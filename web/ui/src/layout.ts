/**
 * Where the service map draws what: a box for each group, in it columns from those who ask to those who are asked.
 *
 * It depends on who speaks to whom and on the width only, not on how much: figures that change every few seconds move nothing. Boxes are placed
 * in order, each as high as it fits, then as far to the left. Labels never overlap, because nodes stand in rows and columns.
 */

export interface Item {
  id: string
  group: string
}

/** Two ids: who asks, and who is asked. */
export interface Link {
  client: string
  server: string
}

/** The corner of a node. */
export interface Place {
  x: number
  y: number
}

export interface Box extends Place {
  group: string
  width: number
  height: number
}

export interface Layout {
  width: number
  height: number
  boxes: Box[]
  places: Map<string, Place>
}

/** Pixels. */
export const NODE = { width: 136, height: 36 }
const COLUMN_GAP = 60
const ROW_GAP = 10
const PAD = 12
const HEAD = 28
const BOX_GAP = 48
/** Rows of a column that are never split into two. */
const FEW_ROWS = 6
/** With more boxes, at least two stand beside each other, and are no broader than this. */
const FEW_BOXES = 3
const FEW_COLUMNS = 4

function groupBy<K, V>(values: V[], key: (value: V) => K): Map<K, V[]> {
  const groups = new Map<K, V[]>()
  for (const value of values) groups.set(key(value), [...(groups.get(key(value)) ?? []), value])
  return groups
}

const byText = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

/** Items by group, in order of their names. */
export function layout(items: Item[], links: Link[], width: number): Layout {
  const sorted = items.toSorted((a, b) => byText(a.id, b.id))
  const layers = layersOf(sorted.map((item) => item.id), links)
  const groups = groupBy(sorted, (item) => item.group)
  const columns = groups.size > FEW_BOXES ? Math.min(fitting((width - BOX_GAP) / 2), FEW_COLUMNS) : fitting(width)
  const inner = [...groups].map(([group, members]) => {
    const ids = members.map((member) => member.id)
    const depth = ids.reduce((sum, id) => sum + (layers.get(id) ?? 0), 0) / ids.length
    return { group, depth, columns: ordered(columnsOf(ids, layers, Math.max(columns, 1)), links) }
  })
  inner.sort((a, b) => a.depth - b.depth || byText(a.group, b.group))
  const boxes: Box[] = []
  const places = new Map<string, Place>()
  for (const { group, columns } of inner) {
    const rows = Math.max(...columns.map((column) => column.length))
    const box = {
      width: 2 * PAD + columns.length * (NODE.width + COLUMN_GAP) - COLUMN_GAP,
      height: HEAD + PAD + rows * (NODE.height + ROW_GAP) - ROW_GAP,
    }
    const corner = free(boxes, box, width)
    boxes.push({ group, ...box, ...corner })
    columns.forEach((column, at) => {
      // Shorter columns stand in the middle.
      const above = HEAD + ((rows - column.length) * (NODE.height + ROW_GAP)) / 2
      column.forEach((id, row) => {
        const x = corner.x + PAD + at * (NODE.width + COLUMN_GAP)
        places.set(id, { x, y: corner.y + above + row * (NODE.height + ROW_GAP) })
      })
    })
  }
  const most = (ends: number[]) => ends.reduce((a, b) => Math.max(a, b), 0)
  return { width: most(boxes.map((box) => box.x + box.width)), height: most(boxes.map((box) => box.y + box.height)), boxes, places }
}

/** How many steps a node is behind those that nobody asks, at most; links that would close a circle are left out. */
function layersOf(ids: string[], links: Link[]): Map<string, number> {
  const asked = new Map(ids.map((id) => [id, [] as string[]]))
  const more = new Map(ids.map((id) => [id, 0]))
  for (const { client, server } of links.toSorted((a, b) => byText(a.client, b.client) || byText(a.server, b.server))) {
    if (client === server || !asked.has(client) || !asked.has(server)) continue
    asked.get(client)?.push(server)
    more.set(client, (more.get(client) ?? 0) + 1)
    more.set(server, (more.get(server) ?? 0) - 1)
  }
  const layers = new Map<string, number>()
  const open = new Set<string>()
  const done: string[] = []
  const kept = new Map<string, string[]>()
  const visit = (id: string) => {
    if (kept.has(id)) return
    open.add(id)
    kept.set(id, (asked.get(id) ?? []).filter((server) => !open.has(server)))
    kept.get(id)?.forEach(visit)
    open.delete(id)
    done.push(id)
  }
  // Who asks more than it is asked comes first. (The sort is stable.)
  ids.toSorted((a, b) => (more.get(b) ?? 0) - (more.get(a) ?? 0)).forEach(visit)
  for (const id of done.reverse()) {
    const own = layers.get(id) ?? 0
    layers.set(id, own)
    for (const server of kept.get(id) ?? []) layers.set(server, Math.max(layers.get(server) ?? 0, own + 1))
  }
  return layers
}

/** Columns of a box of this width. */
const fitting = (width: number) => Math.floor((width - 2 * PAD + COLUMN_GAP) / (NODE.width + COLUMN_GAP))

/** The columns of a box, by layer: as many as fit, long ones split. */
function columnsOf(ids: string[], layers: Map<string, number>, fit: number): string[][] {
  const used = [...new Set(ids.map((id) => layers.get(id) ?? 0))].sort((a, b) => a - b)
  const column = (id: string) => {
    const at = used.indexOf(layers.get(id) ?? 0)
    return used.length <= fit ? at : Math.floor((at * fit) / used.length)
  }
  const whole = [...groupBy(ids, column)].sort(([a], [b]) => a - b).map(([, members]) => members)
  const split = (rows: number) =>
    whole.flatMap((members) => {
      const parts = Math.ceil(members.length / rows)
      const size = Math.ceil(members.length / parts)
      return Array.from({ length: parts }, (_, part) => members.slice(part * size, (part + 1) * size))
    })
  let rows = Math.max(FEW_ROWS, Math.ceil(1.5 * Math.sqrt(ids.length)))
  while (split(rows).length > fit) rows += 1
  return split(rows)
}

/** The same columns, each in the order of whom its nodes speak to in the others: fewer links cross. */
function ordered(columns: string[][], links: Link[]): string[][] {
  const at = new Map<string, number>()
  const note = (column: string[]) => column.forEach((id, row) => at.set(id, (row + 0.5) / column.length))
  columns.forEach(note)
  const near = new Map<string, string[]>([...at.keys()].map((id) => [id, []]))
  for (const { client, server } of links) {
    if (client === server || !at.has(client) || !at.has(server)) continue
    near.get(client)?.push(server)
    near.get(server)?.push(client)
  }
  const middle = (id: string) => {
    const others = (near.get(id) ?? []).map((other) => at.get(other) ?? 0).sort((a, b) => a - b)
    return others.length === 0 ? (at.get(id) ?? 0) : others.reduce((sum, own) => sum + own, 0) / others.length
  }
  for (let round = 0; round < 4; round += 1) {
    for (const column of round % 2 === 0 ? columns : columns.toReversed()) {
      const middles = new Map(column.map((id) => [id, middle(id)]))
      column.sort((a, b) => (middles.get(a) ?? 0) - (middles.get(b) ?? 0) || byText(a, b))
      note(column)
    }
  }
  return columns
}

/** The highest place that is free, then the leftmost; a box that is too wide stands at the left. */
function free(boxes: Box[], { width, height }: { width: number; height: number }, room: number): Place {
  const beside = (x: number) => boxes.filter((box) => box.x < x + width + BOX_GAP && x < box.x + box.width + BOX_GAP)
  const xs = [0, ...boxes.map((box) => box.x + box.width + BOX_GAP)].filter((x) => x === 0 || x + width <= room)
  const ys = [0, ...boxes.map((box) => box.y + box.height + BOX_GAP / 2)]
  const corners = xs.flatMap((x) => {
    const near = beside(x)
    const hits = (y: number) => near.some((box) => box.y < y + height + BOX_GAP / 2 && y < box.y + box.height + BOX_GAP / 2)
    return { x, y: Math.min(...ys.filter((y) => !hits(y))) }
  })
  return corners.reduce((best, own) => (own.y < best.y || (own.y === best.y && own.x < best.x) ? own : best))
}
