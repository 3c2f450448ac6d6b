"""Which tasks need more than reading and writing: instructions with the right verdict beside each."""

from __future__ import annotations

import pytest

from selfinstruct.filters.keyword import Keyword
from selfinstruct.filters.originals import AlpacaHeuristics
from selfinstruct.filters.tools import Tools
from tests.judging import case_of

# Cannot be done by reading and writing alone.
IMPOSSIBLE = """\
Describe what is happening in the image.
Describe the picture in one sentence.
Look at this photo and name the animal.
What do you see in this picture?
Caption the following image.
Analyze the given graph and summarize the trend.
What does the diagram show?
Interpret this bar chart for a lay reader.
Generate an image of a sunset over the sea.
Create a picture of a cat wearing a hat.
Draw a house with two windows.
Draw me a dragon.
Please draw a flowchart of the hiring process.
Could you draw the floor plan of a small flat?
Plot the sales of each month.
Plot a graph of temperature against time.
Make a pie chart of these percentages.
Create a pie chart that shows the population of each continent.
Create a flowchart for making tea.
Design a logo for a bakery called Crumb.
Design a diagram of the water cycle.
Draw a map of Europe with its capitals.
Look at the map and find the shortest route.
According to the map, which city lies furthest north?
Based on the graph, which year had the most rain?
Paint a portrait of an old sailor.
Sketch the layout of a living room.
Make a short video about recycling.
Watch this video and summarize it.
Edit the video so that it lasts one minute.
Transcribe the following audio.
Listen to the audio and write down the words.
Listen to this song and identify the singer.
Record an audio message for my boss.
Compose some music for a wedding.
Play some relaxing music.
Play the next song on the playlist.
Sing a lullaby for my baby.
Open the file and read the first line.
List all FILES in here.
Delete all temporary files from my computer.
Rename the file to report.txt.
Convert this PDF file to Word.
Upload the file to the shared drive.
Download the latest version of the software.
Summarize the attached document.
Proofread the attached report and mark the errors.
Go to the shop and buy bread.
Go to this website and find the opening hours.
Go to the library and borrow a novel.
Send an e-mail to Bob about the meeting.
Send a text message to my sister.
Email my boss that I am ill today.
Forward this message to the whole team.
Call the dentist and make an appointment.
Call my mom.
Text Anna that I will be late.
Set an alarm for seven o'clock.
Set a timer for ten minutes.
Remind me to water the plants tomorrow.
Wake me up at six.
Turn off the lights in the kitchen.
Turn up the volume, please.
Lock the front door.
Open the browser and log in to my account.
Open the website of the city council.
Visit the following website and list its products.
Click on the link and read the terms.
Search the web for cheap flights to Lisbon.
Search online for reviews of this phone.
Google the population of Norway.
Look up the weather in Paris.
Look up the phone number of the nearest pharmacy.
Check the weather forecast for tomorrow.
Check my calendar for next week.
Check my e-mails and delete the spam.
What is the weather like today?
What's today's weather in Berlin?
Tell me the current temperature in Madrid.
What is the current price of gold?
What is the stock price of Apple right now?
Find the current exchange rate of euro and dollar.
Give me the latest news on the election.
What are today's headlines?
Summarize the latest news about electric cars.
What time is it?
What time is it in Tokyo?
What is the date today?
Who won yesterday's game?
Find a good restaurant near me.
What is the nearest petrol station to my house?
How is the traffic on the motorway right now?
Book a flight to London for Friday.
Book me a table for two at eight.
Can you book a hotel in Rome?
Reserve a room at the Grand Hotel.
Order a pizza with mushrooms.
Buy two tickets for the concert.
Schedule a meeting with Jane for Monday.
Please cancel my appointment with the doctor.
Transfer fifty euros to my landlord.
Pay my electricity bill.
Add milk to my shopping list.
Post this on my Facebook page.
Take a photo of the garden.
Take a screenshot of this page.
Install the new update on my phone.
Bring me a glass of water.
Cook me dinner.
Walk my dog this afternoon.
Touch the surface and describe its texture.
Taste this soup and tell me what it lacks.
Read the attached file and list the names.
Print this page twice.
Where am I?
What am I wearing?
What do you hear in this recording?
Identify the instrument playing in this audio clip.
Find the user reviews of this restaurant.
Rotate the image by ninety degrees.
Crop the photo to a square.
Show me a Picture of Rome.
Create an infographic about sleep.
Describe the mood of the people in the photograph.
Explain what is wrong with the wiring shown in the diagram.
Make an animation of a bouncing ball.
Produce a line chart of monthly rainfall.
Can you draw a simple sketch of a bicycle?
What song is playing in this clip?
Convert the recording to text.
Save this file to my desktop.
Email the invoice to the customer.
Message Peter that the train is late.
Ring the landlord about the broken window.
Start a stopwatch.
Switch off the air conditioning.
Make a reservation at an Italian restaurant tonight.
Get me a taxi to the airport.
Find cheap hotels in Vienna for next weekend.
What's the score of the match right now?
How much does a litre of petrol cost today?
Is it going to rain tomorrow?
Who is the current top scorer of the league?
Check if the shop on Main Street is open now.
Tell me how far I am from the station.
Order more printer paper.
Post a tweet about our new product.
Smell the milk and say whether it is sour.
Pick up my laundry.
Scroll down and click the blue button.
Show a picture that illustrates the concept of inertia.
"""

# Nothing but reading and writing, though it may sound otherwise.
POSSIBLE = """\
Draw a conclusion from these two sentences.
Read the report and draw your own conclusions.
Draw parallels between both poems.
Draw on your knowledge of history to answer.
Draw up a contract between a landlord and a tenant.
Draw an analogy between the heart and a pump.
Draw attention to three weaknesses of the argument.
Explain how to draw a cat to a child.
What is the luck of the draw?
Describe the plot of this novel.
Suggest a plot twist for this story.
Summarize the plot of Hamlet in two sentences.
Outline a plot for a detective novel.
Plot a short crime story in five steps.
Name three plot holes that films often have.
Map each word to its opposite.
Map the following skills to job titles.
What is a map in the Python language?
Explain what a contour map is.
Name three kinds of map projections.
File a complaint about a late delivery in formal words.
Explain how to file taxes as a freelancer.
What is the difference between a file and a folder?
Describe the rank and file of a medieval army.
Write a Python function that reads a file and counts its lines.
Which shell command lists all files in a folder?
Explain graph theory to a beginner.
What is a knowledge graph?
Give an example of a bipartite graph.
Describe the graph of y = x^2 in words.
When is a bar chart better than a line chart?
Explain what a flowchart is used for.
What is a Venn diagram?
Picture yourself on a beach and describe your feelings.
Write a poem about the big picture.
What does the saying a picture is worth a thousand words mean?
Write a story in which an old picture changes a life.
Suggest five captions for holiday photos.
How do I take better photos with my phone?
Explain the idiom music to my ears.
List five music genres and a typical instrument of each.
What are the benefits of listening to music while studying?
Write a poem about the music of the sea.
Recommend three songs for a road trip.
Write a song about the first day of spring.
Write a review of a music festival.
Describe the image of the company among its customers.
How can a firm improve its public image?
Define the word self-image.
Explain how image compression works.
What is body image, and why does it matter?
Write a script for a video about recycling.
Suggest a title for a video on baking bread.
Name three popular video games of the nineties.
Write a blog post on the history of video.
Explain how audio books help learners.
List tips for recording clear audio at home.
Why do people go to sleep at night?
Explain why many students go to university abroad.
Where would you go to in Italy for a week, and why?
Write a sentence with the phrase go to pieces.
Write an e-mail to Bob about the meeting.
Write an e-mail to my boss saying that I am ill.
Draft a text message to my sister about dinner.
Compose a polite message to a neighbour about noise.
Write an e-mail that mentions the attached document.
Describe how to set an alarm on a phone.
How do I set a timer on an oven?
Write instructions for turning off the heating.
Translate into German: Set an alarm for seven o'clock.
Translate the sentence "Send an e-mail to Bob" into Spanish.
Rewrite this request politely: turn off the lights.
Is "Call my mom" a statement or a command?
What does the phrasal verb look up mean?
Use look up in a sentence.
Explain the difference between call off and call on.
Call to mind three arguments for free libraries.
Send up the style of a tabloid in one paragraph.
Book titles often use puns; suggest three.
Order the following words alphabetically.
Order these events by date.
Write a dialogue in which a customer orders a pizza.
Write a dialogue between a guest and a hotel clerk about booking a room.
Schedule a week of study for three exams.
Set a four-question quiz on rivers.
Set the scene for a ghost story.
Set out the advantages of remote work.
Turn this sentence into the passive voice.
Turn the recipe into a shopping list.
Turn the letter into a poem.
Check the sentence for spelling mistakes.
Check whether the argument is valid.
Open with a question and end with an answer.
Find the error in this sentence.
Find the odd one out.
Find three synonyms for happy.
Search the text for names of cities and list them.
Search for the longest word in this sentence.
Visit is a noun and a verb; give an example of each.
Play the role of a patient teacher.
Play devil's advocate on school uniforms.
Explain the play Hamlet to a child.
Write a weather report for an imaginary island.
Describe the weather in a tropical rain forest.
Write a poem about today's weather.
What causes the weather to change?
Explain what an exchange rate is.
How is the price of gold determined?
Explain how stock prices are set.
Write a news story about a lost dog.
How do journalists choose the headlines of the day?
Explain the difference between direct and alternating current.
Name the current that warms western Europe.
What time of day is best for exercise?
Convert 15:30 to the twelve-hour clock.
How many days are there in a leap year?
Explain what today and tomorrow mean to a child.
Remind the reader of the main argument in one sentence.
Write a reminder for a customer about an unpaid bill.
Help me remind a customer politely that his invoice is overdue.
Summarize the meeting notes in three bullet points.
Take the role of a tour guide and describe Rome.
Take notes on the following lecture.
Take a stand on whether zoos should exist.
Walk me through the steps of making tea.
Cook up an excuse for missing homework.
Give me a recipe for a simple tomato soup.
Make me a packing list for a week in the mountains.
Explain how to cook rice.
Watch out for false friends and name three of them.
Listen is followed by which preposition?
Write a haiku about watching the rain.
What does it feel like to touch snow for the first time?
Print the result of 3 + 4 in words.
Post-war literature: name three authors.
Add a fitting last line to this limerick.
Add the following numbers.
Pay attention to the tense and correct the verbs.
Buy or rent: which suits a student better?
Transfer the lesson of the fable to modern life.
Explain how to transfer money safely.
Cancel out common factors in this fraction.
Follow the pattern and give the next number.
Like is both a verb and a preposition; explain.
Click, clack and moo are examples of what figure of speech?
Describe a website that you would build for a florist.
Suggest a name for a website on gardening.
Write the HTML for a link to a home page.
What is the latest date on which Easter can fall?
Name the nearest planet to the sun.
Which planet is nearest to the Earth on average?
Write a letter that asks the reader to find the attachment.
Generate a list of words that rhyme with picture.
Use the following words in a sentence: map, river, drawing.
Create a story about a boy who finds a map.
Create a list of file formats.
Make a table of the planets.
Create a table of three cities and their countries.
Record is a word with two stresses; explain both.
Paint a vivid picture of a market in words.
Sketch out the argument of the essay in a few lines.
Describe the role of maps in the age of discovery.
How did early sailors find their way without maps?
Read the passage and answer the question.
Read the poem and name its theme.
Go through the text and remove all adjectives.
Go over these sentences and correct them.
Send-offs can be sad; write one that is funny.
Call the tone of this review positive or negative.
Text A is older than text B; what follows?
Feel free to add details; describe a storm at sea.
See the examples below and continue the series.
Can you hear the difference between ship and sheep? Explain it in writing.
Imagine that you book a flight to Mars; describe the ticket.
Describe a photograph that changed public opinion.
Explain how to read a wiring diagram.
Name three studios that make animation films.
When should a line chart be preferred to a table?
Write a short story about a girl who loves to draw bicycles.
Which song did the band play at Woodstock?
What is the plural of audio?
How do I compress a folder on Windows?
Explain the save and the save as command.
Write an invoice reminder for a customer.
Draft a message to Peter saying the train is late.
Give three rules for calling a landlord about repairs.
Write a short guide to using a stopwatch in class.
What does to switch off mean in informal English?
Role-play a waiter who takes a reservation.
List polite ways to ask for a taxi in French.
Compare hotels and hostels for a student.
Explain the scoring of tennis.
Why does petrol cost more in summer?
Explain why it rains more in the mountains.
Define top scorer.
Is the shop open or is the shop opened correct?
Estimate the distance between two stations 40 minutes apart at 60 km/h.
Order the paragraphs so that the story makes sense.
Write a tweet about a new product.
Rewrite the minutes of our meeting in plain English.
Explain why milk turns sour.
Pick the odd word out.
Suggest a label for a blue button.
Illustrate the concept of inertia with an everyday example.
Draw a moral from the fable.
Play with the sounds in this tongue twister and write a new one.
Set the table of contents in alphabetical order.
Find a better word for big.
Give me feedback on the following paragraph.
Take the first letter of each word and form a new word.
Turn off-topic sentences into footnotes.
Make a graphic comparison between two diets in prose.
Show how the author builds suspense.
Send in the clowns is a song; who wrote it?
"""


def objection(instruction: str) -> str | None:
    case = case_of(instruction)
    verdict = Keyword().judge(case) or Tools().judge(case)
    return verdict.rule if verdict else None


def named_by_the_originals(instruction: str) -> bool:
    verdict = AlpacaHeuristics().judge(case_of(instruction))
    return verdict is not None and verdict.rule == "keyword"


@pytest.mark.parametrize("instruction", IMPOSSIBLE.splitlines())
def test_impossible(instruction):
    assert objection(instruction) in ("keyword", "tools")


@pytest.mark.parametrize("instruction", POSSIBLE.splitlines())
def test_possible(instruction):
    assert objection(instruction) is None


def test_what_the_originals_list_makes_of_these():
    """Why there are two filters here: it finds a third of the impossible ones, and is more often wrong than right."""
    impossible, possible = IMPOSSIBLE.splitlines(), POSSIBLE.splitlines()
    assert len(impossible) + len(possible) >= 150
    found, wrong = sum(map(named_by_the_originals, impossible)), sum(map(named_by_the_originals, possible))
    assert 0.25 < found / len(impossible) < 0.35
    assert 0.35 < found / (found + wrong) < 0.45


def test_detail_quotes_the_demand():
    verdict = Tools().judge(case_of("Please set an alarm for seven o'clock."))
    assert verdict is not None
    assert verdict.detail == "'set an alarm'"
