// Types of what the scripts beside this file pass to one another. Only the type checker reads it; no page contains it.

// Arrays and what Python hands over (explorable.py) -------------------------------------------------------------------

type Numbers = ArrayLike<number>;
type TypedArray = Uint8Array | Uint16Array | Int32Array | Float32Array | Float64Array;

/** An array as Python packed it. */
interface PackedArray {
    type: "uint8" | "uint16" | "int32" | "float32" | "float64";
    shape: number[];
    data: DataView;
}

/** An array, row by row. */
interface NumberArray<Data = Float64Array> {
    data: Data;
    shape: number[];
}

/** What an explorable is built from: plain values, and arrays by name. */
interface Content<Settings = any, Arrays = any> {
    settings: Settings;
    arrays: Arrays;
}

/** The element that holds an explorable, with the numbers behind its text. */
interface Root extends HTMLElement {
    values?: object;
    endWatch?: () => void;
}

/** Builds an explorable inside an element; what it returns ends it. */
type Start = (root: Root, content: Content) => (() => void) | void;

// dom.js and controls.js ----------------------------------------------------------------------------------------------

type Attributes = Record<string, string | number | boolean | null | undefined | ((event: any) => void)>;
type Child = Node | string | null | undefined;

/** What has a place in the frame. */
interface Part {
    element: Element;
}

interface Control<Value> extends Part {
    readonly value: Value;
    set(next: Value): void;
    enable(yes: boolean): void;
}

interface Choice<Value> extends Control<Value> {
    /** Only these values can be chosen now; where the present one is not among them, the first of them is. */
    offer(values: Value[]): void;
}

interface Button extends Part {
    rename(text: string): void;
    enable(yes: boolean): void;
}

interface SliderOptions {
    label: string;
    /** Ascending. */
    values: number[];
    /** The one to begin with. */
    value: number;
    /** Writes a value as text. */
    show?: (value: number) => string;
    /** Called with the new value. */
    change?: (value: number) => void;
}

interface ChoiceOptions<Value> {
    label: string;
    /** Each value's text, and the value. */
    options: Record<string, Value>;
    value: Value;
    change?: (value: Value) => void;
    /** Whether the label stands in the same row. */
    inline?: boolean;
}

// chart.js ------------------------------------------------------------------------------------------------------------

interface Margin {
    left: number;
    right: number;
    top: number;
    bottom: number;
}

interface Axis {
    label?: string;
    domain: number[];
    log?: boolean;
}

interface Tick {
    value: number;
    /** Absent where the tick is a power of ten. */
    text?: string;
    power?: number;
}

interface Style {
    /** Number of the colour. */
    series?: number;
    /** In the place of a series' colour. */
    colour?: string;
    dash?: string;
}

/** What lies outside the domain or is not finite is left out. */
interface Line extends Style {
    x: Numbers;
    y: Numbers;
    width?: number;
    opacity?: number;
}

interface MarkStyle extends Style {
    shape?: string;
    size?: number;
    label?: string;
}

interface Mark extends MarkStyle {
    x: number;
    y: number;
    /** A mark with a key can be picked. */
    key?: any;
}

interface Rule {
    x?: number;
    y?: number;
    label?: string;
    dash?: string;
}

interface Picture {
    x: Axis;
    y: Axis;
    lines?: Line[];
    marks?: Mark[];
    rules?: Rule[];
    /** For one of several small charts. */
    title?: string;
}

interface ChartOptions {
    /** In pixels. */
    height?: number;
    /** What a screen reader calls the picture. */
    label: string;
    /** Room around the frame in pixels. */
    margin?: Margin;
    /**
     * Called with the key of the mark that was touched. There must be another way to the same, since no key of the
     * keyboard leads to a mark.
     */
    pick?: (key: any) => void;
    /** Whether it may stand beside another picture where there is room. */
    neighbour?: boolean;
}

interface Chart extends Part {
    show(picture: Picture): void;
    describe(text: string): void;
    paint(): void;
}

interface Key extends MarkStyle {
    text: string;
}

interface HeatMapOptions {
    lowest?: number;
    split?: number;
}

interface HeatMap extends Part {
    show(data: Numbers, rows: number, columns: number, limit: number, options?: HeatMapOptions): void;
    describe(text: string): void;
    caption(text: string): void;
    paint(): void;
}

// explorable.js -------------------------------------------------------------------------------------------------------

interface FrameOptions {
    /** By which pages and tests find it. */
    name: string;
    title: string;
    /** How to use it, in a sentence. */
    help: string;
    controls: Part[];
    pictures: Part[];
    /** What stands below the pictures: more of them, or a `panel`. */
    further?: Part[];
    /** Whether a picture is a control too. */
    touched?: boolean;
    /** Called when the theme changes. */
    redraw: () => void;
}

/** Sets the text and, as `root.values`, the numbers behind it. */
interface View {
    say(text: string, values: object): void;
}

// descent.js, layer_training.js ---------------------------------------------------------------------------------------

/** Matrix completion by `depth` square factors. */
interface CompletionProblem {
    depth: number;
    d: number;
    target: Numbers;
    /** 1 where an entry is observed and else 0. */
    mask: Numbers;
}

/** Truncated singular value decomposition of a d x d matrix; `left` and `right` are d x rank. */
interface Decomposition {
    left: Numbers;
    right: Numbers;
    values: Numbers;
}

type DescentRun = ReturnType<typeof descent>;

/** Training of a product of square layers, as Inside the weights asks for it. */
interface LayerSetup {
    n: number;
    starts: Float64Array[];
    moments: number[];
    frames: Float64Array[];
    scales: number[];
    target: Float64Array;
    mask: Numbers;
    masked: boolean;
    lr: number;
    decay: number;
}

/** A kept moment of a `LayerRun`. */
interface LayerMoment {
    step: number;
    weights: Float64Array[];
    /** Equation 4's numbers. */
    rho: number[];
    /** Singular values of each layer. */
    values: number[][];
    /** What lies off the blocks of each layer; filled when it is first drawn. */
    leaks?: { inside: number; outside: number }[];
}

interface LayerRun {
    setup: LayerSetup;
    kept: LayerMoment[];
    step: number;
    lost: boolean;
    complete: boolean;
    /** Train until the clock says so, or the step `last` is reached. */
    advance(until: number, last?: number): void;
}

interface BlockMeasures {
    off: number;
    rest: number;
    mean: number;
}

interface InsideSettings {
    n: number;
    rank: number;
    size: number;
    lr: number;
    moments: number[];
    moment: number;
    depths: number[];
    depth: number;
    starts: { name: string; scales: number[] }[];
    share: number;
    weightDecays: number[];
    stepSizes: number[];
}

interface InsideArrays {
    target: NumberArray;
    starts: NumberArray;
    first: NumberArray;
    mask: NumberArray<Uint8Array>;
}

/** The numbers behind the text of Inside the weights that the text names. */
interface InsideValues {
    layer: number;
    depth: number;
    step: number;
    wanted: number;
    trained: number;
    in_frames: boolean;
    masked: boolean;
    lost: boolean;
    off_in_frames: number;
    off_in_standard_basis: number;
    rest: number;
    share_moved: number;
    rho_measured: number;
    rho_predicted: number;
    singular_values: number[];
}

// The race of depths --------------------------------------------------------------------------------------------------

interface RaceSettings {
    d: number;
    rank: number;
    tasks: number[];
    seeds: number[];
    depths: number[];
    n_observed_choices: number[];
    n_observed: number;
    init_scales: number[];
    init_scale: number;
    lrs: number[];
    lr: number;
    n_steps_choices: number[];
    n_steps: number;
    every: number;
    fit: number;
    blow_up: number;
}

interface RaceArrays {
    truths: NumberArray;
    lefts: NumberArray;
    spectra: NumberArray;
    rights: NumberArray;
    orders: NumberArray<Uint16Array>;
    normals: NumberArray;
}

/** What was set for one race; task and seed by their place in the settings' lists. */
interface RaceChoice {
    task: number;
    seed: number;
    nObserved: number;
    scale: number;
    lr: number;
}

interface RecordOptions {
    truth: Float64Array;
    mask: Numbers;
    d: number;
    nObserved: number;
    /** Steps between two records. */
    every: number;
    maxSteps: number;
    /** From which size on a singular value counts as grown. */
    grownAt: number;
    /** The mean squared residual below which the entries count as fitted. */
    fit: number;
}

type RecordedRun = ReturnType<typeof recorded>;
type Measurements = ReturnType<RecordedRun["present"]>;
type Race = ReturnType<typeof lineUp>;
type RaceQuantity = "meanSquare" | "heldOut" | "effectiveRank";

/** What the pictures of the race are drawn from. */
interface RaceState {
    records: RecordedRun[];
    presents: Measurements[];
    every: number;
    d: number;
    /** Last step of the axis. */
    end: number;
    /** Place of the chosen depth. */
    chosen: number;
    truth: Float64Array;
    stableRates: number[];
    /** Step at which the chosen depth was first ten times better than the one before it, or NaN. */
    moment: number;
}

// Pick a panel --------------------------------------------------------------------------------------------------------

/** Positions on the axes of the grid; a seed may be `MEAN`. */
interface Place {
    entries: number;
    depth: number;
    scale: number;
    rate: number;
    seed: number;
}

type GridQuantity =
    "relative_error" | "nuclear_norm" | "effective_rank" | "mean_square" | "rest" | "n_steps" | "n_evaluations";
type DrawnQuantity = "relative_error" | "nuclear_norm" | "effective_rank" | "n_evaluations";

/** A matrix to compare runs with: the truth, or the completion of least nuclear norm. */
interface Reference extends Partial<Record<GridQuantity, number>> {
    spectrum: number[];
    nuclear_norm: number;
    effective_rank: number;
    relative_error: number;
}

interface PanelSettings {
    grid: { n_observed: number[]; depth: number[]; init_scale: number[]; seed: number[] };
    /** Without a number: gradient flow. */
    lrs: (number | null)[];
    statuses: Record<number, string>;
    rank: number;
    stop: number;
    truth: Reference;
    mean_square: number;
    n_values: number;
    /** For each number of entries; absent where it was not solved. */
    convex?: Reference[];
}

type PanelArrays = Record<GridQuantity | "status" | "spectrum" | "stable_lr", NumberArray>;

/** One run, or the mean over the seeds of those that converged; numbers are NaN where none did. */
interface GridRun extends Record<GridQuantity, number> {
    n_observed: number;
    depth: number;
    init_scale: number;
    lr: number | null;
    /** Without a number: the mean over the seeds. */
    seed: number | null;
    n_runs: number;
    n_converged: number;
    /** How many runs ended how. */
    counts: Record<string, number>;
    stable_lr: number;
    spectrum: number[];
    /** The first singular value beyond the rank. */
    value_after_rank: number;
    /** Of a mean, the spectra that it is the mean of. */
    each: number[][];
}

interface Runs {
    run(place: Place): GridRun;
    /** All places that agree with those positions that are given; seeds run over the single ones. */
    places(fixed?: Partial<Place>): Place[];
}

// Compress it ---------------------------------------------------------------------------------------------------------

type RunKind = "wide" | "compressed" | "narrow";

interface StoredCurve {
    kind: RunKind;
    rate: number;
    bound: number;
    /** Whether it met the stopping rule. */
    met: boolean;
    /** Largest stable step along it. */
    stable: number;
    /** For one step. */
    seconds: number;
    from: number;
    count: number;
}

interface Curve extends StoredCurve {
    times: Float64Array;
    errors: Float32Array;
}

interface StoredRace {
    d: number;
    rank: number;
    share: number;
    lr: number;
    device: string;
    rates: number[];
    bounds: number[];
    missed: number[];
    beyond: number[];
    curves: StoredCurve[];
}

interface CompressionRace extends StoredRace {
    curves: Curve[];
}

/** Errors at the cursor. */
interface Reading {
    iterations: number;
    seconds: number;
    error_wide: number;
    error_compressed: number;
    error_compressed_at_equal_time: number;
}

// The gap that depth opens, the corner that Schatten loses ------------------------------------------------------------

interface GapSettings {
    alphas: number[];
    alpha: number;
    depths: number[];
    depth: number;
    ratios: number[];
    ratio: number;
    growths: number[];
    growth: number;
    second0: number;
    reach: number;
}

/** Ratio of strengths, depth, and the two singular values at their start. */
interface GapChoice {
    alpha: number;
    depth: number;
    first0: number;
    second0: number;
}

interface SchattenSettings {
    epsilons: number[];
    exponents: number[];
    others: number[];
    epsilon: number;
    exponent: number;
}
