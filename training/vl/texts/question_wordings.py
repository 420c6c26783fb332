"""How people ask about a picture. {the}, {many}, {noun}, {measure}, {part} and {a} are filled in by asking.py."""

WHAT = {
    "en": (
        "What is this?",
        "What is in the picture?",
        "What do you see?",
        "What does the picture show?",
        "What is it?",
        "What is the main subject?",
        "Which thing is this?",
        "What's in this photo?",
        "Name the main object.",
        "What can be seen here?",
        "What object is this?",
    ),
    "zh": ("这是什么？", "图片里有什么？", "画面中是什么？", "主体是什么？", "你看到了什么？", "这张照片拍的是什么？"),
}
COLOUR = {
    "en": (
        "What colour is {the}?",
        "What color is {the}?",
        "Which colour does {the} have?",
        "What colour is it?",
        "What is the colour of {the}?",
        "What color is the main subject?",
    ),
    "zh": ("{the}是什么颜色的？", "{the}是什么颜色？", "主体是什么颜色？", "它是什么颜色的？"),
}
COLOURS = {
    "en": (
        "What are the main colours?",
        "Which colors dominate the picture?",
        "What colours are in the picture?",
        "What is the dominant colour?",
        "What colour is the picture mostly?",
    ),
    "zh": ("主要颜色是什么？", "图片以什么颜色为主？", "画面有哪些颜色？", "整体是什么色调？"),
}
WHERE = {
    "en": (
        "Where is {the}?",
        "Where is it?",
        "Where is the subject?",
        "In which part of the picture is {the}?",
        "On which side is {the}?",
        "Where in the picture is the main object?",
    ),
    "zh": ("{the}在哪里？", "它在哪里？", "主体在画面的什么位置？", "{the}在哪一边？"),
}
COUNT = {
    "en": (
        "How many {many} are there?",
        "How many {many} do you see?",
        "How many are there?",
        "Count the {many}.",
        "How many objects are in the picture?",
        "What is the number of {many}?",
    ),
    "zh": ("有几{measure}{noun}？", "图中有多少{measure}{noun}？", "一共有几个？", "数一数有几{measure}{noun}？"),
}
SETTING = {
    "en": (
        "Is it indoors or outdoors?",
        "Was this taken inside or outside?",
        "Indoors or outdoors?",
        "Is this outdoors?",
        "Is it inside a building?",
        "Where was it taken, inside or outside?",
    ),
    "zh": ("是室内还是室外？", "这是在户外吗？", "是在室内拍的吗？", "室内还是户外？"),
}
LIGHT = {
    "en": (
        "How is the light?",
        "Is it bright or dark?",
        "What is the lighting like?",
        "How bright is the picture?",
        "Is it dark?",
    ),
    "zh": ("光线怎么样？", "画面亮吗？", "是亮还是暗？", "光线如何？"),
}
SHARP = {
    "en": ("Is it sharp?", "Is the picture blurry?", "Is it in focus?"),
    "zh": ("清晰吗？", "画面模糊吗？", "对焦准吗？"),
}
PARTS = {
    "en": ("Is there any {part}?", "Can you see {part}?", "Does the picture show {part}?"),
    "zh": ("有{part}吗？", "能看到{part}吗？", "画面里有没有{part}？"),
}
THERE = {
    "en": ("Is there {a}?", "Do you see {a}?", "Is this {a}?", "Is it {a}?", "Can you see {a} in the picture?"),
    "zh": ("有{noun}吗？", "是{noun}吗？", "图片里有没有{noun}？", "这是不是{noun}？"),
}
UNKNOWN = {
    "en": (
        "Who is this?",
        "What is his name?",
        "Who took this picture?",
        "What does the sign say?",
        "What is written there?",
        "Read the text.",
        "Where was this taken?",
        "In which city is this?",
        "What country is this?",
        "Why is it there?",
        "Why?",
        "What time is it?",
        "What year was this?",
        "When was this taken?",
        "How old is it?",
        "How old is she?",
        "What brand is it?",
        "How much does it cost?",
        "How heavy is it?",
        "How tall is it?",
        "What is it doing?",
        "What is the {noun} doing?",
        "What will happen next?",
        "Is she happy?",
        "Is the {noun} asleep?",
        "Does it bite?",
        "What does it smell like?",
        "Is it expensive?",
        "What is the weather tomorrow?",
        "Translate this.",
        "Tell me a joke.",
        "What is behind the camera?",
        "Who owns the {noun}?",
        "Is it real?",
        "What is the capital of France?",
    ),
    "zh": (
        "这是谁？",
        "上面写着什么字？",
        "这是在哪里拍的？",
        "是哪个城市？",
        "现在几点？",
        "为什么？",
        "它在做什么？",
        "{noun}在干什么？",
        "多少钱？",
        "它多大了？",
        "是什么牌子的？",
        "她高兴吗？",
        "有多重？",
        "什么时候拍的？",
        "接下来会发生什么？",
        "{noun}叫什么名字？",
        "明天天气怎么样？",
    ),
}
DESCRIBE = {
    "en": ("Describe the picture.", "Tell me about this picture.", "Describe what you see."),
    "zh": ("描述一下这张图片。", "讲讲这张图片。", "请描述画面。"),
}
